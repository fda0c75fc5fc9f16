// A benchmark of a group's engine by itself. Rank 0 runs it instead of serving, and reports it as JSON objects, one on
// each line of standard output (docs/benchmarks/README.md lists them).
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>

#include "base/clock.h"
#include "batching/draft_source.h"
#include "engine/group.h"
#include "worker/options.h"
#include "workload/bench_spec.h"

namespace optserve::worker {

// The clock of a benchmark, the receiver of its events, and what can end it early.
struct BenchHost {
  const Clock& clock;
  std::function<void(const nlohmann::json&)> emit;
  std::function<bool()> is_stopped = [] { return false; };
  bool prefix_cache = false;  // within a run; each run begins with an empty cache
  int draft_tokens = 0;
  batching::DraftSource* draft_source = nullptr;  // may be null
};

// Runs `spec` on rank 0; the other ranks are in follow(). Throws Error for a model that cannot do it.
void run_bench(engine::GroupLeader& leader, const engine::Engine& engine, const workload::BenchSpec& spec,
               const BenchHost& host);

// What rank 0 does instead of serving if options.bench is set. Events go to standard output, and SIGTERM ends it early.
// `draft_source` may be null. Returns the exit status.
int lead_bench(const WorkerOptions& options, engine::GroupLeader& leader, const engine::Engine& engine,
               const backend::Backend& backend, batching::DraftSource* draft_source, const Clock& clock);

}  // namespace optserve::worker

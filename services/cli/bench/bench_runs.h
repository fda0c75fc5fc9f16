// The two ways to run a benchmark: straight on the engine, or through client library, scheduler, tokenizer and worker,
// so that it measures what a user of the service sees.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "cli/bench/bench_recorder.h"
#include "cli/bench/device_usage.h"
#include "client/client.h"
#include "workload/requests.h"

namespace optserve::cli {

using client::Client;

// Starts optserve-worker and hands on every event that it tells until it has ended; the first SIGINT or SIGTERM asks it
// to. Throws Error with the end of the worker's log if it fails.
void run_on_engine(const std::vector<std::string>& worker_arguments, const OnBenchEvent& on_event);

struct PipelineBench {
  Client& client;
  const Clock& clock;
  std::string model;
  workload::BenchSpec spec;
  workload::ModelBounds bounds;
  // Known only of a stack that was started for the benchmark:
  bool runs_every_batch = false;  // its worker can run all sequences of the largest batch at once
  std::function<std::optional<DeviceUsage>()> device_usage;  // of its worker since it started; may be empty
};

// Emits the same events as the engine's benchmark, without "started". SIGINT and SIGTERM end it early and cancel its
// jobs. Throws CommandFailure if the scheduler refuses, Error if a job fails.
void run_on_pipeline(const PipelineBench& bench, const OnBenchEvent& on_event);

}  // namespace optserve::cli

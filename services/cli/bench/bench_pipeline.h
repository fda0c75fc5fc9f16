// Runs a benchmark through client library, scheduler, tokenizer and worker, so that it measures what a user of the
// service sees.
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

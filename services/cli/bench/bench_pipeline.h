// Runs a benchmark through client library, scheduler, tokenizer and worker: what a user of the service sees.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "cli/bench/bench_recorder.h"
#include "cli/bench/device_usage.h"
#include "client/client.h"
#include "workload/requests.h"

namespace optserve::cli {

struct PipelineBench {
  Client& client;
  const Clock& clock;
  std::string model;
  workload::BenchSpec spec;
  workload::ModelBounds bounds;
  // Of a stack started for the benchmark; a foreign one tells neither.
  bool runs_every_batch = false;  // its worker was given the sequences that the largest batch needs
  std::function<std::optional<DeviceUsage>()> device_usage;  // of its worker by now; may be empty
};

// Emits the same events as the engine's benchmark, without "started". SIGINT and SIGTERM end it early and cancel what
// runs. Throws CommandFailure if the scheduler refuses, Error if a job fails.
void run_on_pipeline(const PipelineBench& bench, const OnBenchEvent& on_event);

// A local stack for the time of a benchmark: `optserve up` in a folder of its own.
class BenchStack {
 public:
  // `arguments` of `optserve up` name stack_folder(folder). Returns when all is ready. Throws Error with the end of
  // what it said.
  BenchStack(const std::vector<std::string>& arguments, const std::string& folder);
  ~BenchStack();  // stops it and waits
  BenchStack(const BenchStack&) = delete;
  BenchStack& operator=(const BenchStack&) = delete;

  static std::string stack_folder(const std::string& folder);
  const std::string& endpoint() const { return endpoint_; }
  // What rank 0 of its worker says of its device; nothing if it does not answer.
  std::optional<DeviceUsage> device_usage() const;

 private:
  class Process;
  std::unique_ptr<Process> process_;
  std::string endpoint_;
  int rank_0_port_ = 0;
};

}  // namespace optserve::cli

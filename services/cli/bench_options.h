// What `optserve bench latency` and `optserve bench throughput` are told, checked before anything starts.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/config.h"
#include "base/error.h"
#include "model_spec/opt_config.h"
#include "workload/bench_spec.h"

namespace optserve::cli {

struct BenchOptions {
  explicit BenchOptions(workload::BenchKind k);

  workload::BenchKind kind;
  std::string model;  // FOLDER or NAME=FOLDER of a sharded checkpoint, or the name of a published model
  bool random_weights = false;
  std::string random_format;  // int8, fp8 or int4; empty: plain
  int world = 1;
  std::string device = "cpu";
  std::string dtype;
  std::vector<std::string> worker_options;
  std::string through = "engine";
  std::string connect;
  bool is_volatile = false;

  std::string batches = "1..1024";
  int num_requests = 1000;
  std::string lengths = "mixed";  // or fixed
  int input_tokens;
  int shared_prefix = 0;
  int output_tokens;
  int warmup = 1;
  int repeats;
  int max_sequences = 256;  // throughput; a latency benchmark takes what its largest batch needs
  int max_step_tokens = 0;  // 0: chosen
  uint64_t seed = 0;
  SamplingParams sampling = workload::bench_sampling();

  std::string json_file;
  std::string plot_file;
};

void add_options(ConfigParser& parser, BenchOptions& options);

// "1,2,8", and "1..1024" for doubling from 1 to 1024.
Result<std::vector<int32_t>> parse_batches(const std::string& text);

// The options, understood: what runs, on which model, with which arguments.
struct BenchPlan {
  workload::BenchSpec spec;
  std::string name;    // of the model, for the worker and for clients
  std::string folder;  // of its checkpoint; empty: random weights, or known by its name only
  model_spec::OptConfig config;
  bool pipeline = false;
  std::vector<std::string> worker_options;  // "max-sequences=8", as optserve-worker takes them
};
// Refuses what cannot work, naming the option.
Result<BenchPlan> plan_bench(const BenchOptions& options);

// The command line of optserve-worker for a benchmark straight on the engine.
std::vector<std::string> worker_arguments(const BenchOptions& options, const BenchPlan& plan);
// The command line of `optserve up` for one through a pipeline that is started for it in `folder`.
std::vector<std::string> stack_arguments(const BenchOptions& options, const BenchPlan& plan, const std::string& folder);

}  // namespace optserve::cli

// The options of `optserve bench latency` and `optserve bench throughput`, checked before anything starts.
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
  std::string random_format = "none";  // or int8, fp8, int4
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
  int max_sequences = 256;  // throughput only; a latency benchmark uses the size of its largest batch
  int max_step_tokens = 0;  // 0: chosen
  uint64_t seed = 0;
  sampling::SamplingParams sampling = workload::bench_sampling();

  std::string json_file;
  std::string plot_file;
  std::string published_file;
};

inline constexpr const char* kPublishedHelp =
    "File with published figures, which are drawn too if they have the same prompt and output lengths";

void add_options(ConfigParser& parser, BenchOptions& options);

// Parses "1,2,8", and "1..1024" for doubling from 1 to 1024.
Result<std::vector<int32_t>> parse_batches(const std::string& text);

// What the options mean: what runs, on which model, with which arguments.
struct BenchPlan {
  workload::BenchSpec spec;
  std::string name;    // of the model, for the worker and for clients
  std::string folder;  // of its checkpoint; empty: random weights, or a model that the running stack serves
  model_spec::OptConfig config;
  bool pipeline = false;
  std::vector<std::string> worker_options;  // "max-sequences=8", as optserve-worker takes them
};
// Refuses what cannot work, naming the option. The options must have passed the parser's checks.
Result<BenchPlan> plan_bench(const BenchOptions& options);

// The arguments of optserve-worker for a benchmark of the engine alone.
std::vector<std::string> worker_arguments(const BenchOptions& options, const BenchPlan& plan);
// The arguments of `optserve` that start a pipeline for a benchmark in `folder`.
std::vector<std::string> stack_arguments(const BenchOptions& options, const BenchPlan& plan, const std::string& folder);

}  // namespace optserve::cli

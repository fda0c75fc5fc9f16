// What a benchmark does, for the programs that run it: the same question to an engine and to the whole pipeline.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/error.h"
#include "sampling/sampling_params.h"

namespace optserve::workload {

enum class BenchKind : uint8_t {
  kLatency,    // batches of equal requests, each batch handed in at once
  kThroughput  // many requests of mixed length, all handed in at once
};
std::string_view bench_kind_name(BenchKind kind);  // "latency"

inline constexpr int32_t kBatchMax = 4096;
inline constexpr int32_t kRequestsMax = 100'000;
inline constexpr int32_t kRunsMax = 1000;

// Greedy, and never ending before the length that is asked for.
inline SamplingParams bench_sampling() {
  SamplingParams sampling;
  sampling.temperature = 0;
  sampling.ignore_eos = true;
  return sampling;
}

struct BenchSpec {
  BenchKind kind = BenchKind::kLatency;
  std::vector<int32_t> batches;  // latency only
  int32_t num_requests = 0;      // throughput only
  bool mixed_lengths = false;    // log-normal around the two means instead of equal; throughput only
  int32_t input_tokens = 4;      // of a prompt, the leading </s> included; the mean of mixed lengths
  int32_t shared_prefix = 0;     // tokens that all prompts of all runs begin with, as far as they are that long
  int32_t output_tokens = 256;   // new ones; the mean of mixed lengths
  int32_t warmup = 1;            // runs of each batch that are not counted
  int32_t repeats = 3;           // runs that are
  uint64_t seed = 0;             // of prompts and lengths
  SamplingParams sampling = bench_sampling();

  bool operator==(const BenchSpec&) const = default;
};

// Refuses what no model can do, naming the field.
Status validate(const BenchSpec& spec);
// Refuses requests of equal length that exceed the context of `model`; mixed lengths are cut to it.
Status check_context(const BenchSpec& spec, const std::string& model, int64_t context);

nlohmann::json to_json(const BenchSpec& spec);
// Strict: unknown keys and wrong types are refused, and the result is validated. Absent keys keep their defaults.
Result<BenchSpec> bench_spec_from_json(const nlohmann::json& json);
// From a command line: a JSON object, or the path of a file with one.
Result<BenchSpec> read_bench_spec(const std::string& text_or_path);

}  // namespace optserve::workload

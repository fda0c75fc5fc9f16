// The specification of a benchmark. The same one can be run on the engine alone and through the whole pipeline.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/error.h"
#include "sampling/sampling_params.h"

namespace optserve::workload {

enum class BenchKind : uint8_t {
  kLatency,    // batches of equal requests, each batch submitted at once
  kThroughput  // many requests of mixed length, all submitted at once
};
std::string_view bench_kind_name(BenchKind kind);  // "latency"

inline constexpr int32_t kBatchMax = 4096;
inline constexpr int32_t kRequestsMax = 100'000;
inline constexpr int32_t kRunsMax = 1000;

// Greedy; end of text is ignored, so that every output has the requested length.
inline sampling::SamplingParams bench_sampling() {
  sampling::SamplingParams sampling;
  sampling.temperature = 0;
  sampling.ignore_eos = true;
  return sampling;
}

struct BenchSpec {
  BenchKind kind = BenchKind::kLatency;
  std::vector<int32_t> batches;  // latency only
  int32_t num_requests = 0;      // throughput only
  bool mixed_lengths = false;    // lengths are log-normal around the two means; throughput only
  int32_t input_tokens = 4;      // of a prompt, with the leading </s>; the mean if lengths are mixed
  int32_t shared_prefix = 0;     // number of tokens that all prompts of all runs have in common at their start
  int32_t output_tokens = 256;   // new tokens of a request; the mean if lengths are mixed
  int32_t warmup = 1;            // runs of each batch that do not count
  int32_t repeats = 3;           // runs of each batch that count
  uint64_t seed = 0;             // of prompts and lengths
  sampling::SamplingParams sampling = bench_sampling();

  bool operator==(const BenchSpec&) const = default;
};

// Refuses values that no model allows, naming the field.
Status validate(const BenchSpec& spec);
// Refuses requests of equal length that exceed the context of `model`. Mixed lengths are cut to the context instead.
Status check_context(const BenchSpec& spec, const std::string& model, int64_t context);

nlohmann::json to_json(const BenchSpec& spec);
// Strict: unknown keys and wrong types are refused, and the result is validated. Absent keys keep their defaults.
Result<BenchSpec> bench_spec_from_json(const nlohmann::json& json);
// Reads an argument of a command line: a JSON object, or the path of a file with one.
Result<BenchSpec> read_bench_spec(const std::string& text_or_path);

}  // namespace optserve::workload

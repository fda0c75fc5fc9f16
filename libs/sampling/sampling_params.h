// What a request may ask of the sampler: defaults, ranges and meaning, in one place.
#pragma once

#include <cstdint>

#include "base/error.h"

namespace optserve {

struct SamplingParams {
  float temperature = 1.0f;         // 0: greedy; else logits are divided by it; 0..2
  int32_t top_k = 0;                // keep the k best; 0: all; 0..vocab
  float top_p = 1.0f;               // smallest set of best tokens with at least this mass; (0, 1]
  float repetition_penalty = 1.0f;  // logits of ids already in prompt or output: l > 0 ? l / r : l * r; (0, 10]
  float presence_penalty = 0.0f;    // subtracted once for each generated id; -2..2
  float frequency_penalty = 0.0f;   // subtracted for each occurrence of a generated id; -2..2
  int32_t min_new_tokens = 0;       // the end-of-text id is not drawn before; 0..context
  bool ignore_eos = false;          // run to the length limit (benchmarks)
  uint64_t seed = 0;                // the token at position p of the sequence depends on (seed, p) alone

  bool is_greedy() const { return temperature == 0.0f || top_k == 1; }
  bool operator==(const SamplingParams&) const = default;
};

// Refuses a value outside its range, or NaN, naming the field, the range and the value.
Status validate(const SamplingParams& params);

}  // namespace optserve

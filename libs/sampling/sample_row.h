// What a sampling call knows of one sequence and of the vocabulary.
#pragma once

#include <cstdint>
#include <span>

#include "base/ids.h"
#include "sampling/sampling_params.h"

namespace optserve {

// One sequence that draws a token.
struct SampleRow {
  SamplingParams params;
  int64_t position = 0;              // index in the sequence of the token to draw: the generator's counter
  bool allow_eos = true;             // false while fewer than min_new_tokens are generated
  std::span<const TokenId> history;  // prompt and generated ids, for the penalties; host memory, valid during the call
  int64_t prompt_tokens = 0;         // so many of `history` are prompt
};

// A SampleRow as a device reads it: the history is row `slot` of a table, its first `position` entries. Kernels know
// the same bytes by another name.
struct PackedSampleRow {
  float temperature = 0;
  int32_t top_k = 0;
  float top_p = 1;
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  int32_t slot = -1;  // -1: padding, draws nothing
  int32_t position = 0;
  int32_t prompt_tokens = 0;
  int32_t allow_eos = 1;
  uint64_t seed = 0;
};

// What the rows of a call need of the chain.
enum SampleFeature : uint32_t {
  kSampleDraw = 1,       // some row is not greedy
  kSampleTruncate = 2,   // some row that is not greedy has top-k or top-p
  kSamplePenalties = 4,  // some row has a penalty
};

PackedSampleRow pack(const SamplingParams& params, int32_t slot, int32_t position, int32_t prompt_tokens);
SampleRow unpack(const PackedSampleRow& row, std::span<const TokenId> history);
uint32_t sample_features(const SamplingParams& params);

// Which ids may be drawn at all.
struct DrawableIds {
  int64_t vocab_real = 0;  // ids at or above are padding of the table and are never drawn
  TokenId eos = 2;         // not drawn while a row's allow_eos is false
  TokenId pad = 1;         // never drawn
};

}  // namespace optserve

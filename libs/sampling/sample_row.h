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
  bool allow_end = true;             // false while fewer than min_new_tokens are generated
  std::span<const TokenId> history;  // prompt and generated ids; host memory, valid during the call
  int64_t prompt_tokens = 0;         // so many of `history` are prompt
  std::span<const int32_t> rules;    // packed TokenRules (sampling/token_rules.h); empty: none
};

// A SampleRow as a device reads it: the history is row `slot` of a table, its first `position` entries, and so are the
// rules. Kernels know the same bytes by another name.
struct PackedSampleRow {
  float temperature = 0;
  int32_t top_k = 0;
  float top_p = 1;
  float min_p = 0;
  float typical_p = 1;
  float top_p_decay = 1;
  float top_p_min = 0;
  int32_t top_p_decay_after = 0;
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  float prompt_presence_penalty = 0;
  float prompt_frequency_penalty = 0;
  int32_t slot = -1;  // -1: padding, draws nothing
  int32_t position = 0;
  int32_t prompt_tokens = 0;
  uint32_t flags = kAllowEnd;
  int32_t profile = 0;    // SamplingProfile
  int32_t logprobs = -1;  // of how many best ids; -1, 0: none
  int32_t reserved = 0;
  uint64_t seed = 0;

  // kBestAllowed: the best ids are those that may be drawn, by their logits after biases and penalties.
  enum Flag : uint32_t { kAllowEnd = 1, kHasRules = 2, kBestAllowed = 4 };
};

// What the rows of a call need of the chain.
enum SampleFeature : uint32_t {
  kSampleDraw = 1,       // some row is not greedy
  kSampleTruncate = 2,   // some row that is not greedy has top-k, top-p, min-p or typical-p
  kSamplePenalties = 4,  // some row has a penalty
  kSampleRules = 8,      // some row has rules
  kSampleTypical = 16,   // some row that is not greedy has typical-p
  kSampleLogprobs = 32,  // some row wants its best ids
};

PackedSampleRow pack(const SamplingParams& params, bool has_rules, int32_t slot, int32_t position,
                     int32_t prompt_tokens);
// `rules`: of the row's slot; not looked at if the row has none.
SampleRow unpack(const PackedSampleRow& row, std::span<const TokenId> history, std::span<const int32_t> rules);
uint32_t sample_features(const SamplingParams& params, bool has_rules);

// Which ids may be drawn at all.
struct DrawableIds {
  int64_t vocab_real = 0;  // ids at or above are padding of the table and are never drawn
  TokenId eos = 2;         // not drawn while a row's allow_end is false
  TokenId pad = 1;         // never drawn
};

}  // namespace optserve

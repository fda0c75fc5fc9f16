// What a sampling call knows about one sequence and about the vocabulary.
#pragma once

#include <cstdint>
#include <span>

#include "base/ids.h"
#include "sampling/packed_sample_row.h"

namespace optserve::sampling {

// One sequence that draws a token.
struct SampleRow {
  SamplingParams params;
  int64_t position = 0;              // index in the sequence of the token to draw: the generator's counter
  bool allow_end = true;             // false while fewer than min_new_tokens are generated
  std::span<const TokenId> history;  // prompt and generated ids; host memory, valid during the call
  int64_t prompt_tokens = 0;         // how many ids of `history` are the prompt's
  std::span<const int32_t> rules;    // packed TokenRules (sampling/packed_rules.h); empty: none
};

PackedSampleRow pack(const SamplingParams& params, bool has_rules, int32_t slot, int32_t position,
                     int32_t prompt_tokens);
// `rules` are those of the row's slot; they are ignored unless the row has kHasRules.
SampleRow unpack(const PackedSampleRow& row, std::span<const TokenId> history, std::span<const int32_t> rules);
// The SampleFeatures that a row with these parameters needs.
uint32_t sample_features(const SamplingParams& params, bool has_rules);

// Which ids may be drawn at all.
struct DrawableIds {
  int64_t vocab_real = 0;  // ids at or above this are padding of the table and are never drawn
  TokenId eos = 2;         // not drawn while a row's allow_end is false
  TokenId pad = 1;         // never drawn
};

}  // namespace optserve::sampling

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

// Which ids may be drawn at all.
struct DrawableIds {
  int64_t vocab_real = 0;  // ids at or above are padding of the table and are never drawn
  TokenId eos = 2;         // not drawn while a row's allow_eos is false
  TokenId pad = 1;         // never drawn
};

}  // namespace optserve

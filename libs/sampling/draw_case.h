// For tests: one row of a sampling call, with all that it points to.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "sampling/packed_rules.h"
#include "sampling/sample_row.h"

namespace optserve::sampling {

struct DrawCase {
  SamplingParams params;
  TokenRules rules;
  std::vector<TokenId> history;
  int64_t prompt_tokens = 0;
  bool allow_end = true;
  std::vector<int32_t> words;  // the rules as the row has them

  // Valid until the next call, and as long as the case.
  SampleRow row() {
    words = pack(rules);
    return {params, static_cast<int64_t>(history.size()), allow_end, history, prompt_tokens, words};
  }
};

constexpr DrawableIds drawable(int64_t vocab) { return {vocab, 2, 1}; }

}  // namespace optserve::sampling

// A row of a sampling call in the form that devices read. It is plain data, so that kernels/ can include it.
#pragma once

#include <cstdint>

#include "sampling/sampling_params.h"

namespace optserve::sampling {

// One row that draws a token. Its history is the first `position` entries of row `slot` of a table, and its rules are
// row `slot` of another table.
struct PackedSampleRow : SamplingParams {
  enum Flag : uint32_t {
    kAllowEnd = 1,     // not set while fewer than min_new_tokens are generated
    kHasRules = 2,     // the slot has TokenRules
    kBestAllowed = 4,  // the best ids are those that may be drawn, by their logits after biases and penalties
  };

  int32_t slot = -1;          // -1: padding, draws nothing and stores nothing
  int32_t position = 0;       // tokens known so far: index of the token to draw; below 2^16
  int32_t prompt_tokens = 0;  // how many of the known tokens are the prompt's
  uint32_t flags = kAllowEnd;
};

}  // namespace optserve::sampling

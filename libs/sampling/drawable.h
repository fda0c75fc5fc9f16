// Whether a request leaves anything to draw: what its masks (sampling/logit_steps.h) hide, as sets of ids.
#pragma once

#include <cstdint>
#include <span>

#include "base/error.h"
#include "sampling/packed_rules.h"
#include "sampling/sample_row.h"

namespace optserve::sampling {

// Refuses if no id can be drawn after `history`, which is the prompt and `generated` ids of output. A request without
// rules always leaves some.
Status check_drawable(const SamplingParams& params, const TokenRules& rules, std::span<const TokenId> history,
                      int64_t generated, const DrawableIds& ids);

}  // namespace optserve::sampling

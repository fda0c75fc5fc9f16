// Checks, with sets of ids, whether the masks of a request (sampling/logit_steps.h) leave anything to draw.
#pragma once

#include <cstdint>
#include <span>

#include "base/error.h"
#include "sampling/packed_rules.h"
#include "sampling/sample_row.h"

namespace optserve::sampling {

// Refuses if no id can be drawn after `history`, which is the prompt and `generated` ids of output. A request without
// rules always leaves something to draw.
Status check_drawable(const SamplingParams& params, const TokenRules& rules, std::span<const TokenId> history,
                      int64_t generated, const DrawableIds& ids);

}  // namespace optserve::sampling

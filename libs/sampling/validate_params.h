// Validation of a request's sampling parameters, and the names of profiles.
#pragma once

#include <string_view>

#include "base/error.h"
#include "sampling/sampling_params.h"

namespace optserve::sampling {

// Refuses NaN and values outside of their range, naming the field, the range and the value; and with a beam search,
// parameters that the table does not allow with one.
Status validate(const SamplingParams& params);

// "default", "fastertransformer", "metaseq".
std::string_view sampling_profile_name(SamplingProfile profile);
Result<SamplingProfile> parse_sampling_profile(std::string_view name);

}  // namespace optserve::sampling

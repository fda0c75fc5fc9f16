// What is refused of the parameters that a request brings, and the names of profiles.
#pragma once

#include <string_view>

#include "base/error.h"
#include "sampling/sampling_params.h"

namespace optserve::sampling {

// Refuses a value outside its range, or NaN, naming the field, the range and the value; and in a beam search what the
// table does not allow beside one.
Status validate(const SamplingParams& params);

// "default", "fastertransformer", "metaseq".
std::string_view sampling_profile_name(SamplingProfile profile);
Result<SamplingProfile> parse_sampling_profile(std::string_view name);

}  // namespace optserve::sampling

#include "sampling/sampling_params.h"

#include <algorithm>
#include <sstream>
#include <type_traits>

namespace optserve {
namespace {

template <class T>
Status check_range(const ParameterInfo& info, T value) {
  if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, uint64_t>) {
    return ok_status();
  } else {
    const auto number = static_cast<double>(value);
    // In the type of the field, so that a bound is met exactly; written so that NaN fails.
    const auto min = static_cast<double>(static_cast<T>(info.min)), max = static_cast<double>(static_cast<T>(info.max));
    const bool above = info.min_excluded ? number > min : number >= min;
    if (above && number <= max) return ok_status();
    std::ostringstream text;
    text << info.name << ": expected " << info.min << (info.min_excluded ? " < value" : " <= value")
         << " <= " << info.max << ", found ";
    if constexpr (std::is_floating_point_v<T>) {
      text << value;
    } else {
      text << static_cast<int64_t>(value);
    }
    return refuse(ErrorCode::kBadRequest, text.str());
  }
}

}  // namespace

std::string_view sampling_profile_name(SamplingProfile profile) {
  switch (profile) {
    case SamplingProfile::kDefault:
      return "default";
    case SamplingProfile::kFasterTransformer:
      return "fastertransformer";
    case SamplingProfile::kMetaseq:
      return "metaseq";
  }
  return "unknown";
}

Result<SamplingProfile> parse_sampling_profile(std::string_view name) {
  for (const auto profile :
       {SamplingProfile::kDefault, SamplingProfile::kFasterTransformer, SamplingProfile::kMetaseq}) {
    if (name == sampling_profile_name(profile)) return profile;
  }
  return refuse(ErrorCode::kBadRequest,
                "profile: expected default, fastertransformer or metaseq, found '" + std::string(name) + "'");
}

namespace {

// A beam search follows the best continuations: nothing is drawn.
Status check_beams(const SamplingParams& params) {
  SamplingParams plain = params;
  plain.temperature = 1.0f, plain.top_k = 0, plain.top_p = plain.typical_p = plain.top_p_decay = 1.0f;
  plain.min_p = plain.top_p_min = 0.0f, plain.top_p_decay_after = 0, plain.profile = SamplingProfile::kDefault;
  plain.logprobs = std::min(params.logprobs, 0);
  if (params.temperature == 0.0f) plain.temperature = 0.0f;
  if (plain == params) return ok_status();
  return refuse(ErrorCode::kBadRequest,
                "beam_width: expected temperature 0 or 1, logprobs -1 or 0, and the defaults of top_k, top_p, min_p, "
                "typical_p, the decay of top_p, and profile: a beam search draws nothing");
}

}  // namespace

Status validate(const SamplingParams& params) {
  Status found = ok_status();
  for_each_parameter(params, [&found](const ParameterInfo& info, auto value) {
    if (found.ok()) found = check_range(info, value);
  });
  return found.ok() && params.is_beam_search() ? check_beams(params) : found;
}

}  // namespace optserve

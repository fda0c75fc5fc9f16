#include "sampling/validate_params.h"

#include <sstream>
#include <string>
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

template <class T>
std::string value_text(T value) {
  std::ostringstream text;
  if constexpr (std::is_floating_point_v<T>) {
    text << value;
  } else {
    text << static_cast<int64_t>(value);
  }
  return text.str();
}

// Refuses what has no meaning in a beam search, which follows the best continuations and draws nothing.
template <class T>
Status check_with_beams(const ParameterInfo& info, T value, T usual) {
  if (value == usual || info.with_beams == WithBeams::kAllowed) return ok_status();
  const bool may_be_zero = info.with_beams == WithBeams::kZero;
  if (may_be_zero && value == T{}) return ok_status();
  return refuse(ErrorCode::kBadRequest, std::string(info.name) + ": expected " + value_text(usual) +
                                            (may_be_zero ? " or 0" : "") + " in a beam search, found " +
                                            value_text(value));
}

}  // namespace

Status validate(const SamplingParams& params) {
  constexpr SamplingParams kDefaults;
  Status found = ok_status();
  for_each_field([&](const ParameterInfo& info, auto field) {
    if (found.ok()) found = check_range(info, params.*field);
    if (found.ok() && params.is_beam_search()) found = check_with_beams(info, params.*field, kDefaults.*field);
  });
  return found;
}

}  // namespace optserve

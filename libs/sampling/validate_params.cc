#include "sampling/validate_params.h"

#include <string>
#include <type_traits>

#include "base/input_check.h"

namespace optserve::sampling {
namespace {

template <class T>
auto number_of(T value) {
  if constexpr (std::is_floating_point_v<T>) {
    return value;
  } else {
    return static_cast<int64_t>(value);
  }
}

template <class T>
Status check_field(const ParameterInfo& info, T value) {
  if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, uint64_t>) {
    return ok_status();
  } else {
    // Compares in the type of the field, so that bounds are exact.
    const auto number = number_of(value), min = static_cast<decltype(number_of(value))>(info.min),
               max = static_cast<decltype(number_of(value))>(info.max);
    if constexpr (std::is_floating_point_v<T>) {
      if (info.min_excluded) return check_above(info.name, number, min, max);
    }
    return check_range(info.name, number, min, max);
  }
}

// Refuses what has no meaning in a beam search, which follows the best continuations and draws nothing.
template <class T>
Status check_with_beams(const ParameterInfo& info, T value, T usual) {
  if (value == usual || info.with_beams == WithBeams::kAllowed) return ok_status();
  const bool may_be_zero = info.with_beams == WithBeams::kZero;
  if (may_be_zero && value == T{}) return ok_status();
  return refuse(ErrorCode::kBadRequest, std::string(info.name) + " is " + number_text(number_of(value)) +
                                            ", expected " + number_text(number_of(usual)) +
                                            (may_be_zero ? " or 0" : "") + " in a beam search");
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
  return check_choice("profile", name, {"default", "fastertransformer", "metaseq"}).refusal();
}

Status validate(const SamplingParams& params) {
  constexpr SamplingParams kDefaults;
  Status found = ok_status();
  for_each_field([&](const ParameterInfo& info, auto field) {
    if (found.ok()) found = check_field(info, params.*field);
    if (found.ok() && params.is_beam_search()) found = check_with_beams(info, params.*field, kDefaults.*field);
  });
  return found;
}

}  // namespace optserve::sampling

#include "sampling/sampling_params.h"

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

Status validate(const SamplingParams& params) {
  Status found = ok_status();
  for_each_parameter(params, [&found](const ParameterInfo& info, auto value) {
    if (found.ok()) found = check_range(info, value);
  });
  return found;
}

}  // namespace optserve

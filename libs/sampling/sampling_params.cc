#include "sampling/sampling_params.h"

#include <sstream>

#include "base/limits.h"

namespace optserve {
namespace {

template <class T>
struct Range {
  const char* name;
  T SamplingParams::*field;
  T min;
  T max;
  bool min_excluded;
};

constexpr Range<float> kFloatRanges[] = {
    {"temperature", &SamplingParams::temperature, 0, 2, false},
    {"top_p", &SamplingParams::top_p, 0, 1, true},
    {"repetition_penalty", &SamplingParams::repetition_penalty, 0, 10, true},
    {"presence_penalty", &SamplingParams::presence_penalty, -2, 2, false},
    {"frequency_penalty", &SamplingParams::frequency_penalty, -2, 2, false},
};

constexpr Range<int32_t> kIntRanges[] = {
    {"top_k", &SamplingParams::top_k, 0, limits::kVocabularyMax, false},
    {"min_new_tokens", &SamplingParams::min_new_tokens, 0, limits::kContextTokensMax, false},
};

template <class T>
Status check_range(const SamplingParams& params, const Range<T>& range) {
  const T value = params.*range.field;
  // Written so that NaN fails.
  const bool above = range.min_excluded ? value > range.min : value >= range.min;
  if (above && value <= range.max) return ok_status();
  std::ostringstream text;
  text << range.name << ": expected " << range.min << (range.min_excluded ? " < value" : " <= value")
       << " <= " << range.max << ", found " << value;
  return refuse(ErrorCode::kBadRequest, text.str());
}

}  // namespace

Status validate(const SamplingParams& params) {
  for (const auto& range : kFloatRanges) {
    if (Status status = check_range(params, range); !status.ok()) return status;
  }
  for (const auto& range : kIntRanges) {
    if (Status status = check_range(params, range); !status.ok()) return status;
  }
  return ok_status();
}

}  // namespace optserve

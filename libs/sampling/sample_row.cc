#include "sampling/sample_row.h"

#include <type_traits>

namespace optserve::sampling {

static_assert(std::is_trivially_copyable_v<PackedSampleRow>, "rows are copied to devices as bytes");

PackedSampleRow pack(const SamplingParams& params, bool has_rules, int32_t slot, int32_t position,
                     int32_t prompt_tokens) {
  PackedSampleRow row{params};
  row.slot = slot;
  row.position = position;
  row.prompt_tokens = prompt_tokens;
  row.flags = 0;
  if (position - prompt_tokens >= params.min_new_tokens) row.flags |= PackedSampleRow::kAllowEnd;
  if (has_rules) row.flags |= PackedSampleRow::kHasRules;
  if (params.is_beam_search()) row.flags |= PackedSampleRow::kBestAllowed;
  return row;
}

SampleRow unpack(const PackedSampleRow& row, std::span<const TokenId> history, std::span<const int32_t> rules) {
  return {
      .params = row,
      .position = row.position,
      .allow_end = (row.flags & PackedSampleRow::kAllowEnd) != 0,
      .history = history,
      .prompt_tokens = row.prompt_tokens,
      .rules = (row.flags & PackedSampleRow::kHasRules) != 0 ? rules : std::span<const int32_t>(),
  };
}

uint32_t sample_features(const SamplingParams& params, bool has_rules) {
  constexpr SamplingParams kDefaults;
  uint32_t features = 0;
  for_each_field([&](const ParameterInfo& info, auto field) {
    if (params.*field != kDefaults.*field) features |= info.needs;
  });
  if (params.is_greedy()) {
    features &= ~uint32_t{kSampleTruncate | kSampleTypical};
  } else {
    features |= kSampleDraw;
  }
  if (has_rules) features |= kSampleRules;
  if (params.logprobs > 0) features |= kSampleLogprobs;
  return features;
}

}  // namespace optserve::sampling

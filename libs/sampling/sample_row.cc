#include "sampling/sample_row.h"

namespace optserve {

PackedSampleRow pack(const SamplingParams& params, bool has_rules, int32_t slot, int32_t position,
                     int32_t prompt_tokens) {
  const bool allow_end = position - prompt_tokens >= params.min_new_tokens;
  return {
      .temperature = params.temperature,
      .top_k = params.top_k,
      .top_p = params.top_p,
      .min_p = params.min_p,
      .typical_p = params.typical_p,
      .top_p_decay = params.top_p_decay,
      .top_p_min = params.top_p_min,
      .top_p_decay_after = params.top_p_decay_after,
      .repetition_penalty = params.repetition_penalty,
      .presence_penalty = params.presence_penalty,
      .frequency_penalty = params.frequency_penalty,
      .prompt_presence_penalty = params.prompt_presence_penalty,
      .prompt_frequency_penalty = params.prompt_frequency_penalty,
      .slot = slot,
      .position = position,
      .prompt_tokens = prompt_tokens,
      .flags = (allow_end ? PackedSampleRow::kAllowEnd : 0u) | (has_rules ? PackedSampleRow::kHasRules : 0u) |
               (params.is_beam_search() ? PackedSampleRow::kBestAllowed : 0u),
      .profile = static_cast<int32_t>(params.profile),
      .logprobs = params.logprobs,
      .seed = params.seed,
  };
}

SampleRow unpack(const PackedSampleRow& row, std::span<const TokenId> history, std::span<const int32_t> rules) {
  return {
      .params = {.temperature = row.temperature,
                 .top_k = row.top_k,
                 .top_p = row.top_p,
                 .min_p = row.min_p,
                 .typical_p = row.typical_p,
                 .top_p_decay = row.top_p_decay,
                 .top_p_min = row.top_p_min,
                 .top_p_decay_after = row.top_p_decay_after,
                 .repetition_penalty = row.repetition_penalty,
                 .presence_penalty = row.presence_penalty,
                 .frequency_penalty = row.frequency_penalty,
                 .prompt_presence_penalty = row.prompt_presence_penalty,
                 .prompt_frequency_penalty = row.prompt_frequency_penalty,
                 .seed = row.seed,
                 .logprobs = row.logprobs,
                 .profile = static_cast<SamplingProfile>(row.profile)},
      .position = row.position,
      .allow_end = (row.flags & PackedSampleRow::kAllowEnd) != 0,
      .history = history,
      .prompt_tokens = row.prompt_tokens,
      .rules = (row.flags & PackedSampleRow::kHasRules) != 0 ? rules : std::span<const int32_t>(),
  };
}

uint32_t sample_features(const SamplingParams& params, bool has_rules) {
  uint32_t features = 0;
  if (!params.is_greedy()) {
    features |= kSampleDraw;
    const bool truncated = params.top_k > 0 || params.top_p < 1.0f || params.top_p_decay < 1.0f ||
                           params.min_p > 0.0f || params.typical_p < 1.0f;
    if (truncated) features |= kSampleTruncate;
    if (params.typical_p < 1.0f) features |= kSampleTypical;
  }
  const bool penalised = params.repetition_penalty != 1.0f || params.presence_penalty != 0.0f ||
                         params.frequency_penalty != 0.0f || params.prompt_presence_penalty != 0.0f ||
                         params.prompt_frequency_penalty != 0.0f;
  if (penalised || params.profile != SamplingProfile::kDefault) features |= kSamplePenalties;
  if (has_rules) features |= kSampleRules;
  if (params.logprobs > 0) features |= kSampleLogprobs;
  return features;
}

}  // namespace optserve

#include "sampling/sample_row.h"

namespace optserve {

PackedSampleRow pack(const SamplingParams& params, int32_t slot, int32_t position, int32_t prompt_tokens) {
  return {
      .temperature = params.temperature,
      .top_k = params.top_k,
      .top_p = params.top_p,
      .repetition_penalty = params.repetition_penalty,
      .presence_penalty = params.presence_penalty,
      .frequency_penalty = params.frequency_penalty,
      .slot = slot,
      .position = position,
      .prompt_tokens = prompt_tokens,
      .allow_eos = position - prompt_tokens >= params.min_new_tokens ? 1 : 0,
      .seed = params.seed,
  };
}

SampleRow unpack(const PackedSampleRow& row, std::span<const TokenId> history) {
  return {
      .params = {.temperature = row.temperature,
                 .top_k = row.top_k,
                 .top_p = row.top_p,
                 .repetition_penalty = row.repetition_penalty,
                 .presence_penalty = row.presence_penalty,
                 .frequency_penalty = row.frequency_penalty,
                 .seed = row.seed},
      .position = row.position,
      .allow_eos = row.allow_eos != 0,
      .history = history,
      .prompt_tokens = row.prompt_tokens,
  };
}

uint32_t sample_features(const SamplingParams& params) {
  uint32_t features = 0;
  if (!params.is_greedy()) {
    features |= kSampleDraw;
    if (params.top_k > 0 || params.top_p < 1.0f) features |= kSampleTruncate;
  }
  const bool penalised =
      params.repetition_penalty != 1.0f || params.presence_penalty != 0.0f || params.frequency_penalty != 0.0f;
  if (penalised) features |= kSamplePenalties;
  return features;
}

}  // namespace optserve

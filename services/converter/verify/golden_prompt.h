// A fixed prompt through the engine's layers, with weights of two origins: do they compute the same?
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/ids.h"
#include "engine/weight_source.h"

namespace optserve::converter {

// Up to 16 ids below vocab_real, the first one the model's bos_id: the same for every model of these sizes.
std::vector<TokenId> golden_prompt(const model_spec::OptConfig& config);

// Its logits on the CPU, F32[tokens, vocab], in the memory of one layer or of the token table. nullopt if `goes_on`,
// which is asked once a layer, says no. Throws Error when weights cannot be read.
std::optional<std::vector<float>> golden_logits(const engine::WeightSource& weights, const std::vector<TokenId>& prompt,
                                                const std::function<bool()>& goes_on);

struct LogitDifference {
  int64_t rows = 0;
  int64_t same_best = 0;  // rows whose best token is the same
  double largest = 0;     // |difference|; infinite if one side alone is not finite
  double relative = 0;    // rms difference / rms of the wanted logits about the mean of their row
};
LogitDifference compare_logits(std::span<const float> wanted, std::span<const float> found, int64_t vocab);

// The largest LogitDifference::relative between a checkpoint and its source's weights, rounded as it rounds them.
// `same_sums`: both sides do the same additions, so nothing may differ; else, as where one multiplies codes and scales
// the sum and the other has multiplied each weight, by the noise of sums in fp32.
double logit_bound(bool same_sums);

}  // namespace optserve::converter

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

// The largest LogitDifference::relative that weights with these errors explain. `error_squares`: the sum over the
// tensors of (rms rounding error / rms weight)^2. A product's relative error is that of its weights; rounding errors of
// tensors are independent, so they add up in squares; and each reaches the logits whole at most: a layer adds only a
// part of the residual stream. `same_sums`: both sides do the same additions with the same weights, so nothing may
// differ; else the noise of fp32 sums is allowed beside.
double logit_bound(double error_squares, bool same_sums);

}  // namespace optserve::converter

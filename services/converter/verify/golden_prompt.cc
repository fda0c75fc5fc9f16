#include "converter/verify/golden_prompt.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/cpu/cpu_backend.h"
#include "base/check.h"
#include "engine/layer_walk.h"
#include "tensor/random_block.h"

namespace optserve::converter {
namespace {

constexpr int64_t kPromptTokens = 16;
constexpr TokenId kFirstWord = 4;  // after <s>, <pad>, </s> and <unk>
constexpr double kSumNoise = 1e-4;

struct RowDifference {
  double squares = 0;
  double wanted_squares = 0;  // about the mean
  double largest = 0;
};

double mean_of_finite(std::span<const float> values) {
  double sum = 0;
  int64_t count = 0;
  for (const float value : values) {
    if (!std::isfinite(value)) continue;
    sum += value;
    ++count;
  }
  return count > 0 ? sum / static_cast<double>(count) : 0;
}

RowDifference compare_row(std::span<const float> wanted, std::span<const float> found) {
  RowDifference row;
  const double mean = mean_of_finite(wanted);
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (std::isfinite(wanted[i])) row.wanted_squares += (wanted[i] - mean) * (wanted[i] - mean);
    if (wanted[i] == found[i] || (std::isnan(wanted[i]) && std::isnan(found[i]))) continue;
    double difference = std::abs(static_cast<double>(found[i]) - wanted[i]);
    if (!std::isfinite(difference)) difference = HUGE_VAL;
    row.largest = std::max(row.largest, difference);
    row.squares += difference * difference;
  }
  return row;
}

}  // namespace

std::vector<TokenId> golden_prompt(const model_spec::OptConfig& config) {
  std::vector<TokenId> ids = {config.bos_id};
  const int64_t words = config.vocab_real - kFirstWord;
  const int64_t tokens = std::min(kPromptTokens, config.max_positions);
  for (uint64_t i = 1; i < static_cast<uint64_t>(tokens); ++i) {
    const uint64_t chance = splitmix64(i);
    ids.push_back(words > 0 ? kFirstWord + static_cast<TokenId>(chance % static_cast<uint64_t>(words))
                            : static_cast<TokenId>(chance % static_cast<uint64_t>(config.vocab_real)));
  }
  return ids;
}

std::optional<std::vector<float>> golden_logits(const engine::WeightSource& weights, const std::vector<TokenId>& prompt,
                                                const std::function<bool()>& goes_on) {
  backend::CpuBackend backend({});
  engine::LayerWalk walk(weights, backend, {prompt});
  while (!walk.at_end()) {
    if (!goes_on()) return std::nullopt;
    walk.next_layer();
  }
  return walk.logits(0);
}

LogitDifference compare_logits(std::span<const float> wanted, std::span<const float> found, int64_t vocab) {
  check_eq(wanted.size(), found.size(), "compare_logits: sizes");
  LogitDifference all;
  const auto width = static_cast<size_t>(vocab);
  double squares = 0, wanted_squares = 0;
  for (size_t at = 0; at < wanted.size(); at += width) {
    const std::span<const float> a = wanted.subspan(at, width), b = found.subspan(at, width);
    const RowDifference row = compare_row(a, b);
    squares += row.squares;
    wanted_squares += row.wanted_squares;
    all.largest = std::max(all.largest, row.largest);
    all.same_best += std::ranges::max_element(a) - a.begin() == std::ranges::max_element(b) - b.begin();
    ++all.rows;
  }
  if (squares > 0) all.relative = std::sqrt(squares / std::max(wanted_squares, std::numeric_limits<double>::min()));
  return all;
}

double logit_bound(bool same_sums) { return same_sums ? 0 : kSumNoise; }

}  // namespace optserve::converter

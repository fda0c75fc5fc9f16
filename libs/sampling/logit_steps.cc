#include "sampling/logit_steps.h"

#include <algorithm>
#include <array>
#include <cfloat>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "sampling/random.h"
#include "sampling/scan.h"

namespace optserve {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

LogitRange range_of(std::span<const float> logits) { return widest_scan().range(logits.data(), logits.size()); }

double log_sum_exp(std::span<const float> logits, float largest) {
  return largest + std::log(widest_scan().exponentials(logits.data(), logits.size(), largest, 1.0f, nullptr));
}

bool within(TokenId id, size_t vocab) { return id >= 0 && static_cast<size_t>(id) < vocab; }

// Where a truncation ends: logits above `logit` stay, and of those equal to it the first `equals` in order of ids.
struct Cut {
  float logit;
  int64_t equals;
};

void apply(const Cut& cut, std::span<float> logits, std::span<float> weights) {
  widest_scan().cut_below(logits.data(), weights.data(), logits.size(), cut.logit);
  int64_t equals = cut.equals;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] != cut.logit || equals-- > 0) continue;
    logits[i] = kMinusInfinity;
    weights[i] = 0;
  }
}

// Histogram of logits, best bucket first, each with the number and the weight of its ids. Finds a cut without sorting
// more than the one bucket that the cut falls into.
class Buckets {
 public:
  Buckets(std::span<const float> logits, std::span<const float> weights) : logits_(logits), weights_(weights) {
    const LogitRange range = range_of(logits);
    largest_ = range.largest;
    // Ids far below the best hold next to no weight; they share the last bucket.
    const float width = std::min(range.largest - range.smallest, kWidthMax);
    scale_ = width > 0 ? static_cast<float>(kBuckets - 1) / width : 0.0f;
    for (size_t i = 0; i < logits.size(); ++i) {
      if (logits[i] == kMinusInfinity) continue;
      Bucket& bucket = buckets_[bucket_of(logits[i])];
      ++bucket.count;
      bucket.weight += weights[i];
    }
  }

  double weight() const {
    double total = 0;
    for (const Bucket& bucket : buckets_) total += bucket.weight;
    return total;
  }
  int64_t count() const {
    int64_t total = 0;
    for (const Bucket& bucket : buckets_) total += bucket.count;
    return total;
  }

  // Keeps the fewest best ids whose sum of measure(count, weight) reaches `wanted`.
  template <class Measure>
  Cut cut_at(double wanted, const Measure& measure, std::vector<SamplerScratch::Candidate>& candidates) const {
    double before = 0;
    size_t chosen = 0;
    for (size_t b = 0; b < kBuckets; ++b) {
      if (buckets_[b].count == 0) continue;
      chosen = b;
      const double here = measure(static_cast<double>(buckets_[b].count), buckets_[b].weight);
      if (before + here >= wanted) break;
      before += here;
    }
    collect(chosen, candidates);
    size_t last = 0;
    while (last + 1 < candidates.size()) {
      before += measure(1.0, static_cast<double>(weights_[static_cast<size_t>(candidates[last].id)]));
      if (before >= wanted) break;
      ++last;
    }
    Cut cut{candidates[last].logit, 0};
    for (size_t i = 0; i <= last; ++i) cut.equals += candidates[i].logit == cut.logit;
    return cut;
  }

 private:
  static constexpr size_t kBuckets = 1024;
  static constexpr float kWidthMax = 64.0f;
  struct Bucket {
    int64_t count = 0;
    double weight = 0;
  };

  size_t bucket_of(float logit) const {
    return static_cast<size_t>(std::min((largest_ - logit) * scale_, static_cast<float>(kBuckets - 1)));
  }
  // Ids of one bucket, best first.
  void collect(size_t bucket, std::vector<SamplerScratch::Candidate>& candidates) const {
    candidates.clear();
    for (size_t i = 0; i < logits_.size(); ++i) {
      if (logits_[i] == kMinusInfinity || bucket_of(logits_[i]) != bucket) continue;
      candidates.push_back({logits_[i], static_cast<TokenId>(i)});
    }
    std::ranges::sort(
        candidates, [](const auto& a, const auto& b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; });
  }

  std::span<const float> logits_, weights_;
  float largest_ = 0;
  float scale_ = 0;
  std::array<Bucket, kBuckets> buckets_{};
};

}  // namespace

SamplerScratch::SamplerScratch(int64_t vocab)
    : logits(static_cast<size_t>(vocab)),
      weights(static_cast<size_t>(vocab)),
      occurrences(static_cast<size_t>(vocab)),
      block_sums(static_cast<size_t>(vocab) / kSumBlock + 1) {
  candidates.reserve(static_cast<size_t>(vocab));
}

namespace logit_steps {

void repetition_penalty(std::span<float> logits, std::span<const TokenId> history, float penalty,
                        SamplerScratch& scratch) {
  for (const TokenId id : history) {
    if (!within(id, logits.size()) || scratch.occurrences[static_cast<size_t>(id)]++ != 0) continue;
    float& logit = logits[static_cast<size_t>(id)];
    logit = std::clamp(logit > 0 ? logit / penalty : logit * penalty, -FLT_MAX, FLT_MAX);
  }
  for (const TokenId id : history) {
    if (within(id, logits.size())) scratch.occurrences[static_cast<size_t>(id)] = 0;
  }
}

void presence_and_frequency(std::span<float> logits, std::span<const TokenId> generated, float presence,
                            float frequency, SamplerScratch& scratch) {
  for (const TokenId id : generated) {
    if (within(id, logits.size())) ++scratch.occurrences[static_cast<size_t>(id)];
  }
  for (const TokenId id : generated) {
    if (!within(id, logits.size())) continue;
    int32_t& occurrences = scratch.occurrences[static_cast<size_t>(id)];
    if (occurrences == 0) continue;  // an earlier occurrence was charged for all
    logits[static_cast<size_t>(id)] -= presence + static_cast<float>(occurrences) * frequency;
    occurrences = 0;
  }
}

void mask(std::span<float> logits, const SampleRow& row, const DrawableIds& ids) {
  if (within(ids.pad, logits.size())) logits[static_cast<size_t>(ids.pad)] = kMinusInfinity;
  if (!row.allow_eos && within(ids.eos, logits.size())) logits[static_cast<size_t>(ids.eos)] = kMinusInfinity;
}

TokenId greedy(std::span<const float> logits) {
  const float largest = range_of(logits).largest;
  if (largest == kMinusInfinity) return -1;
  return static_cast<TokenId>(std::ranges::find(logits, largest) - logits.begin());
}

void weigh(std::span<const float> logits, float temperature, std::span<float> weights) {
  const float largest = range_of(logits).largest;
  // A temperature too small to invert acts as the smallest that can be.
  const float scale = std::min(1.0f / temperature, FLT_MAX);
  widest_scan().exponentials(logits.data(), logits.size(), largest, scale, weights.data());
}

void top_k(std::span<float> logits, std::span<float> weights, int64_t k, SamplerScratch& scratch) {
  const Buckets buckets(logits, weights);
  if (buckets.count() <= k) return;
  const auto count_only = [](double count, double) { return count; };
  apply(buckets.cut_at(static_cast<double>(k), count_only, scratch.candidates), logits, weights);
}

void top_p(std::span<float> logits, std::span<float> weights, float p, SamplerScratch& scratch) {
  const Buckets buckets(logits, weights);
  const auto weight_only = [](double, double weight) { return weight; };
  apply(buckets.cut_at(static_cast<double>(p) * buckets.weight(), weight_only, scratch.candidates), logits, weights);
}

TokenId draw(std::span<const float> weights, double uniform, SamplerScratch& scratch) {
  widest_scan().running_sums(weights.data(), weights.size(), scratch.block_sums.data());
  const size_t blocks = (weights.size() + kSumBlock - 1) / kSumBlock;
  if (blocks == 0) return -1;
  const double target = uniform * scratch.block_sums[blocks - 1];
  size_t block = 0;
  while (block + 1 < blocks && scratch.block_sums[block] < target) ++block;
  double running = block == 0 ? 0.0 : scratch.block_sums[block - 1];
  TokenId last = -1;  // rounding may leave the running sum below a target that the block's sum reaches
  for (size_t i = block * kSumBlock; i < std::min((block + 1) * kSumBlock, weights.size()); ++i) {
    if (weights[i] == 0.0f) continue;
    running += static_cast<double>(weights[i]);
    last = static_cast<TokenId>(i);
    if (running >= target) break;
  }
  return last;
}

}  // namespace logit_steps

DrawnToken draw_token(std::span<const float> all_logits, const SampleRow& row, const DrawableIds& ids,
                      SamplerScratch& scratch) {
  const auto vocab = static_cast<size_t>(ids.vocab_real);
  check(vocab <= all_logits.size() && ids.vocab_real <= scratch.vocab(), "more real ids than logits or scratch");
  const auto original = all_logits.first(vocab);
  const LogitRange range = range_of(original);
  if (!range.finite) return {};

  const SamplingParams& params = row.params;
  const std::span<float> logits = std::span(scratch.logits).first(vocab);
  const std::span<float> weights = std::span(scratch.weights).first(vocab);
  std::ranges::copy(original, logits.begin());
  if (params.repetition_penalty != 1.0f) {
    logit_steps::repetition_penalty(logits, row.history, params.repetition_penalty, scratch);
  }
  if (params.presence_penalty != 0.0f || params.frequency_penalty != 0.0f) {
    const auto generated = row.history.subspan(static_cast<size_t>(row.prompt_tokens));
    logit_steps::presence_and_frequency(logits, generated, params.presence_penalty, params.frequency_penalty, scratch);
  }
  logit_steps::mask(logits, row, ids);

  DrawnToken drawn;
  drawn.token = logit_steps::greedy(logits);
  if (drawn.token >= 0 && !params.is_greedy()) {
    logit_steps::weigh(logits, params.temperature, weights);
    if (params.top_k > 0) logit_steps::top_k(logits, weights, params.top_k, scratch);
    if (params.top_p < 1.0f) logit_steps::top_p(logits, weights, params.top_p, scratch);
    drawn.token = logit_steps::draw(weights, uniform_at(params.seed, static_cast<uint64_t>(row.position)), scratch);
  }
  if (drawn.token < 0) return {};
  drawn.logprob = static_cast<float>(original[static_cast<size_t>(drawn.token)] - log_sum_exp(original, range.largest));
  return drawn;
}

float log_probability(std::span<const float> logits, TokenId target) {
  check(within(target, logits.size()), "log probability of an id outside the vocabulary");
  const LogitRange range = range_of(logits);
  if (!range.finite) return std::numeric_limits<float>::quiet_NaN();
  return static_cast<float>(logits[static_cast<size_t>(target)] - log_sum_exp(logits, range.largest));
}

}  // namespace optserve

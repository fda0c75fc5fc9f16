#include <gtest/gtest.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "sampling/logit_steps.h"
#include "sampling/random.h"
#include "sampling/scan.h"

namespace optserve::sampling {
namespace sampling_test {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// ---- generator

TEST(Philox, MatchesThePublishedVectors) {
  // kat_vectors of Random123, philox4x32 with 10 rounds.
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr uint32_t kOnes = 0xffffffff;
  EXPECT_EQ(philox({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(UniformAt, LiesInTheHalfOpenInterval) {
  double sum = 0;
  for (uint64_t position = 0; position < 100'000; ++position) {
    const double u = uniform_at(42, position);
    ASSERT_GT(u, 0.0);
    ASSERT_LE(u, 1.0);
    sum += u;
  }
  EXPECT_NEAR(sum / 100'000, 0.5, 0.005);
  std::set<double> distinct;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    for (uint64_t position = 0; position < 100; ++position) distinct.insert(uniform_at(seed, position));
  }
  EXPECT_EQ(distinct.size(), 10'000u);
}

// ---- steps

class LogitStepsTest : public testing::Test {
 protected:
  LogitStepsTest() : seed_(std::random_device{}()), random_(seed_) {}
  ~LogitStepsTest() override {
    if (HasFailure()) std::printf("seed %u\n", seed_);
  }
  std::vector<float> normal(size_t n, float scale = 3) {
    std::normal_distribution<float> distribution(0, scale);
    std::vector<float> values(n);
    for (float& value : values) value = distribution(random_);
    return values;
  }
  int64_t pick(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random_); }
  std::vector<TokenId> ids(int64_t n, int64_t vocab) {
    std::vector<TokenId> result;
    for (; n > 0; --n) result.push_back(static_cast<TokenId>(pick(0, vocab - 1)));
    return result;
  }
  // Ids from best to worst, the lower first among equals.
  static std::vector<size_t> ranked(const std::vector<float>& logits) {
    std::vector<size_t> order(logits.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::ranges::stable_sort(order, [&](size_t a, size_t b) { return logits[a] > logits[b]; });
    return order;
  }
  static std::set<size_t> kept(const std::vector<float>& logits, const std::vector<float>& weights) {
    std::set<size_t> result;
    for (size_t i = 0; i < logits.size(); ++i) {
      if (logits[i] != -kInfinity) {
        result.insert(i);
      } else {
        EXPECT_EQ(weights[i], 0.0f) << "id " << i;
      }
    }
    return result;
  }

  unsigned seed_;
  std::mt19937 random_;
};

TEST_F(LogitStepsTest, RepetitionPenaltyChargesEachIdOnce) {
  SamplerScratch scratch(6);
  std::vector<float> logits{2, -2, 0, 3, -3, 1};
  const std::vector<TokenId> history{0, 1, 0, 0, 2, 1, -1, 6, 100};
  logit_steps::repetition_penalty(logits, history, 2, scratch);
  EXPECT_EQ(logits, (std::vector<float>{1, -4, 0, 3, -3, 1}));
  logit_steps::repetition_penalty(logits, history, 0.5f, scratch);  // the scratch was left clean
  EXPECT_EQ(logits, (std::vector<float>{2, -2, 0, 3, -3, 1}));
  logit_steps::repetition_penalty(logits, history, 1e-44f, scratch);
  EXPECT_EQ(logits[0], FLT_MAX) << "held within the finite floats";
}

TEST_F(LogitStepsTest, PresenceOnceFrequencyByCount) {
  SamplerScratch scratch(5);
  std::vector<float> logits(5, 10);
  const std::vector<TokenId> generated{3, 1, 3, 3, 7, -2};
  logit_steps::presence_and_frequency(logits, generated, 0.5f, 2, scratch);
  EXPECT_EQ(logits, (std::vector<float>{10, 7.5f, 10, 3.5f, 10}));
  logit_steps::presence_and_frequency(logits, generated, -0.5f, -2, scratch);
  EXPECT_EQ(logits, std::vector<float>(5, 10));
}

TEST_F(LogitStepsTest, MasksPadAndEarlyEnd) {
  std::vector<float> logits(4, 1);
  SampleRow row;
  logit_steps::mask(logits, row, {4, 2, 1});
  EXPECT_EQ(logits, (std::vector<float>{1, -kInfinity, 1, 1}));
  row.allow_end = false;
  logit_steps::mask(logits, row, {4, 2, 1});
  EXPECT_EQ(logits, (std::vector<float>{1, -kInfinity, -kInfinity, 1}));
  logit_steps::mask(logits, row, {4, 99, -1});  // a vocabulary without these ids
  EXPECT_EQ(logits[0], 1);
}

TEST_F(LogitStepsTest, GreedyTakesTheLowestOfEquals) {
  for (const size_t n : {1, 7, 8, 9, 100, 1003}) {
    std::vector<float> logits = normal(n);
    const auto best = static_cast<size_t>(pick(0, static_cast<int64_t>(n) - 1));
    logits[best] = 100;
    EXPECT_EQ(logit_steps::greedy(logits), static_cast<TokenId>(best));
    logits[n - 1] = 100;
    EXPECT_EQ(logit_steps::greedy(logits), static_cast<TokenId>(best));
  }
  EXPECT_EQ(logit_steps::greedy(std::vector<float>(9, -kInfinity)), -1);
}

TEST_F(LogitStepsTest, WeighIsTheExponentialOfTheDistance) {
  for (const float temperature : {1e-45f, 1e-6f, 0.3f, 1.0f, 2.0f}) {
    const std::vector<float> logits = normal(1003, 10);
    std::vector<float> weights(logits.size(), kNan);
    logit_steps::weigh(logits, temperature, weights);
    const double largest = static_cast<double>(std::ranges::max(logits));
    for (size_t i = 0; i < logits.size(); ++i) {
      const double expected = std::exp((static_cast<double>(logits[i]) - largest) / static_cast<double>(temperature));
      // (l - largest) / t is rounded before the exponential, so the relative error is up to its size times epsilon.
      ASSERT_NEAR(weights[i], expected, 1e-5 * expected + 2e-38) << logits[i] << " at temperature " << temperature;
    }
  }
}

TEST_F(LogitStepsTest, TopKKeepsExactlyTheKBest) {
  for (int round = 0; round < 60; ++round) {
    const auto n = static_cast<size_t>(pick(1, 3000));
    std::vector<float> logits = normal(n);
    if (round % 2 == 0) {
      for (float& logit : logits) logit = std::round(logit);  // many equals
    }
    if (round % 5 == 0) logits[n / 2] = -1e30f;  // an outlier
    if (round % 7 == 0) std::ranges::fill(logits, 1.0f);
    SamplerScratch scratch(static_cast<int64_t>(n));
    std::vector<float> weights(n);
    logit_steps::weigh(logits, 1, weights);
    const int64_t k = pick(1, static_cast<int64_t>(n) + 2);
    const auto order = ranked(logits);
    const std::set<size_t> expected(order.begin(), order.begin() + std::min<int64_t>(k, static_cast<int64_t>(n)));
    logit_steps::top_k(logits, weights, k, scratch);
    ASSERT_EQ(kept(logits, weights), expected) << "k " << k << " of " << n << ", round " << round;
  }
}

TEST_F(LogitStepsTest, TopPKeepsTheSmallestSetThatReachesP) {
  for (int round = 0; round < 60; ++round) {
    const auto n = static_cast<size_t>(pick(1, 3000));
    std::vector<float> logits = normal(n, round % 3 == 0 ? 0.1f : 4.0f);
    if (round % 2 == 0) {
      for (float& logit : logits) logit = std::round(logit);
    }
    SamplerScratch scratch(static_cast<int64_t>(n));
    std::vector<float> weights(n);
    logit_steps::weigh(logits, 1, weights);
    const float p = static_cast<float>(pick(1, 999)) / 1000;
    const auto order = ranked(logits);
    const auto before = weights;
    const double total = std::accumulate(before.begin(), before.end(), 0.0);
    logit_steps::top_p(logits, weights, p, logit_steps::Boundary::kWhole, scratch);
    const std::set<size_t> found = kept(logits, weights);
    const std::set<size_t> best(order.begin(), order.begin() + static_cast<int64_t>(found.size()));
    ASSERT_EQ(found, best) << "the best ids are kept, round " << round;
    double mass = 0;
    for (size_t i = 0; i < found.size(); ++i) mass += static_cast<double>(before[order[i]]);
    const double last = static_cast<double>(before[order[found.size() - 1]]);
    ASSERT_GE(mass, static_cast<double>(p) * total * (1 - 1e-9)) << "p is reached, round " << round;
    ASSERT_LT(mass - last, static_cast<double>(p) * total * (1 + 1e-9)) << "no id is superfluous, round " << round;
  }
}

TEST_F(LogitStepsTest, TopPKeepsTheIdThatCrosses) {
  SamplerScratch scratch(4);
  std::vector<float> logits{std::log(0.1f), std::log(0.5f), std::log(0.3f), std::log(0.1f)}, weights(4);
  logit_steps::weigh(logits, 1, weights);
  logit_steps::top_p(logits, weights, 0.6f, logit_steps::Boundary::kWhole, scratch);
  EXPECT_EQ(kept(logits, weights), (std::set<size_t>{1, 2}));
  logit_steps::top_p(logits, weights, 1e-6f, logit_steps::Boundary::kWhole, scratch);
  EXPECT_EQ(kept(logits, weights), (std::set<size_t>{1}));
}

TEST_F(LogitStepsTest, DrawInvertsTheDistributionFunction) {
  SamplerScratch scratch(2000);
  for (int round = 0; round < 50; ++round) {
    std::vector<float> weights = normal(static_cast<size_t>(pick(1, 2000)), 1);
    for (float& weight : weights) weight = std::max(weight, 0.0f);
    weights[weights.size() / 2] = 1;
    const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
    const double uniform = round == 0 ? 1.0 : static_cast<double>(pick(1, 1'000'000)) / 1e6;
    const TokenId drawn = logit_steps::draw(weights, uniform, scratch);
    ASSERT_GE(drawn, 0);
    ASSERT_GT(weights[static_cast<size_t>(drawn)], 0.0f);
    const double up_to = std::accumulate(weights.begin(), weights.begin() + drawn + 1, 0.0);
    EXPECT_GE(up_to, uniform * total * (1 - 1e-12));
    EXPECT_LE(up_to - static_cast<double>(weights[static_cast<size_t>(drawn)]), uniform * total * (1 + 1e-12));
  }
}

TEST_F(LogitStepsTest, BothKernelSetsScanAlike) {
  if (avx2_scan() == nullptr) GTEST_SKIP() << "no AVX2 here";
  for (const size_t n : {1, 7, 8, 9, 511, 512, 513, 5003}) {
    std::vector<float> logits = normal(n);
    if (n > 8) logits[n / 2] = -kInfinity;
    const LogitRange a = baseline_scan().range(logits.data(), n), b = avx2_scan()->range(logits.data(), n);
    EXPECT_EQ(a.finite, n <= 8);
    EXPECT_EQ(b.finite, n <= 8);
    EXPECT_EQ(a.largest, std::ranges::max(logits));
    EXPECT_EQ(b.largest, a.largest);
    std::vector<float> terms(n, kNan), others(n, kNan);
    const double total = baseline_scan().exponentials(logits.data(), n, a.largest, 0.5f, terms.data());
    EXPECT_NEAR(avx2_scan()->exponentials(logits.data(), n, a.largest, 0.5f, others.data()), total, 1e-5 * total);
    for (size_t i = 0; i < n; ++i) ASSERT_NEAR(terms[i], others[i], 1e-6 * static_cast<double>(terms[i]));
    std::vector<double> sums(n / kSumBlock + 1), other_sums(sums.size());
    baseline_scan().running_sums(terms.data(), n, sums.data());
    avx2_scan()->running_sums(terms.data(), n, other_sums.data());
    EXPECT_EQ(sums, other_sums);
    std::vector<float> maxima(n / kMaxBlock + 1, kNan), other_maxima(maxima.size(), kNan);
    baseline_scan().block_maxima(logits.data(), n, maxima.data());
    avx2_scan()->block_maxima(logits.data(), n, other_maxima.data());
    for (size_t i = 0; i < n; i += kMaxBlock) {
      const auto end = logits.begin() + static_cast<ptrdiff_t>(std::min(n, i + kMaxBlock));
      EXPECT_EQ(maxima[i / kMaxBlock], *std::max_element(logits.begin() + static_cast<ptrdiff_t>(i), end));
      EXPECT_EQ(other_maxima[i / kMaxBlock], maxima[i / kMaxBlock]);
    }
  }
}

// ---- the chain

class DrawTokenTest : public LogitStepsTest {};

TEST_F(DrawTokenTest, FollowsTheDistribution) {
  // A chi-square test over 40 ids at temperature 0.7, whose expectation includes penalties and truncation.
  constexpr int64_t kVocab = 40, kDraws = 40'000;
  const std::vector<float> logits = normal(kVocab, 1.5f);
  SampleRow row;
  row.params = {.temperature = 0.7f, .top_k = 20, .top_p = 0.95f, .repetition_penalty = 1.3f, .seed = random_()};
  const std::vector<TokenId> history = ids(10, kVocab);
  row.history = history;
  SamplerScratch scratch(kVocab);
  std::vector<float> expected = logits, weights(kVocab);
  logit_steps::repetition_penalty(expected, history, 1.3f, scratch);
  logit_steps::mask(expected, row, {kVocab, 2, 1});
  logit_steps::weigh(expected, 0.7f, weights);
  logit_steps::top_k(expected, weights, 20, scratch);
  logit_steps::top_p(expected, weights, 0.95f, logit_steps::Boundary::kWhole, scratch);
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);

  std::vector<int64_t> drawn(kVocab, 0);
  for (int64_t i = 0; i < kDraws; ++i) {
    row.position = i;
    const DrawnToken token = draw_token(logits, row, {kVocab, 2, 1}, scratch);
    ASSERT_GE(token.token, 0);
    ++drawn[static_cast<size_t>(token.token)];
  }
  double chi_square = 0;
  int freedom = -1;
  for (size_t i = 0; i < drawn.size(); ++i) {
    const double want = static_cast<double>(weights[i]) / total * kDraws;
    if (want == 0) {
      EXPECT_EQ(drawn[i], 0) << "id " << i << " was cut off";
      continue;
    }
    ++freedom;
    chi_square += (static_cast<double>(drawn[i]) - want) * (static_cast<double>(drawn[i]) - want) / want;
  }
  // Five standard deviations above the mean of the distribution: one run in about a million fails by chance.
  EXPECT_LT(chi_square, freedom + 5 * std::sqrt(2.0 * freedom) + 10) << freedom << " degrees of freedom";
}

TEST_F(DrawTokenTest, DependsOnSeedAndPositionAlone) {
  const std::vector<float> logits = normal(5000, 1);
  SamplerScratch scratch(5000), other(9000);
  std::set<TokenId> distinct;
  for (int64_t position = 0; position < 50; ++position) {
    SampleRow row;
    row.params.seed = 99;
    row.position = position;
    const DrawnToken first = draw_token(logits, row, {5000, 2, 1}, scratch);
    const DrawnToken again = draw_token(logits, row, {5000, 2, 1}, other);
    EXPECT_EQ(first.token, again.token);
    EXPECT_EQ(first.logprob, again.logprob);
    distinct.insert(first.token);
  }
  EXPECT_GT(distinct.size(), 30u);
}

TEST_F(DrawTokenTest, PenaltiesStandBeforeTemperature) {
  // 4 / 2 = 2 loses to 3 whatever the temperature; presence would decide otherwise if it came after dividing by 0.01.
  const std::vector<float> logits{4, -9, -9, 3};
  const std::vector<TokenId> history{0};
  SamplerScratch scratch(4);
  SampleRow row;
  row.params = {.temperature = 0.01f, .repetition_penalty = 2};
  row.history = history;
  EXPECT_EQ(draw_token(logits, row, {4, 2, 1}, scratch).token, 3);
  row.params = {.temperature = 0.01f, .presence_penalty = 1.5f};
  EXPECT_EQ(draw_token(logits, row, {4, 2, 1}, scratch).token, 3);
  row.prompt_tokens = 1;  // presence and frequency do not count prompt ids
  EXPECT_EQ(draw_token(logits, row, {4, 2, 1}, scratch).token, 0);
}

TEST_F(DrawTokenTest, LogprobIsTheModelsOwn) {
  const std::vector<float> logits = normal(1500, 5);
  SamplerScratch scratch(1500);
  SampleRow row;
  row.params = {.temperature = 0.5f, .top_k = 3};
  const DrawnToken drawn = draw_token(logits, row, {1500, 2, 1}, scratch);
  double total = 0;
  for (const float logit : logits) total += std::exp(static_cast<double>(logit));
  const double expected = static_cast<double>(logits[static_cast<size_t>(drawn.token)]) - std::log(total);
  EXPECT_NEAR(drawn.logprob, expected, 1e-5);
  EXPECT_NEAR(log_probability(logits, drawn.token), expected, 1e-5);
}

TEST_F(DrawTokenTest, NonFiniteLogitsGiveNothing) {
  SamplerScratch scratch(100);
  for (const float bad : {kNan, kInfinity, -kInfinity}) {
    for (const size_t where : {0, 5, 63, 96, 99}) {
      std::vector<float> logits = normal(100);
      logits[where] = bad;
      EXPECT_EQ(draw_token(logits, {}, {100, 2, 1}, scratch).token, -1) << bad << " at " << where;
      EXPECT_TRUE(std::isnan(log_probability(logits, 3)));
      if (where != 99) continue;
      EXPECT_GE(draw_token(logits, {}, {99, 2, 1}, scratch).token, 0) << "padding may hold anything";
    }
  }
}

TEST_F(DrawTokenTest, NothingDrawableGivesNothing) {
  SamplerScratch scratch(3);
  SampleRow row;
  row.allow_end = false;
  EXPECT_EQ(draw_token(std::vector<float>{1}, row, {1, 0, 1}, scratch).token, -1);
}

TEST_F(DrawTokenTest, ExtremeButFiniteLogits) {
  SamplerScratch scratch(4);
  SampleRow row;
  row.params = {.top_k = 2, .top_p = 0.5f};
  EXPECT_EQ(draw_token(std::vector<float>{-FLT_MAX, 0, -FLT_MAX, FLT_MAX}, row, {4, 2, 1}, scratch).token, 3);
  row.params = {.top_p = 0.5f};
  const TokenId token = draw_token(std::vector<float>(4, -FLT_MAX), row, {4, 2, 1}, scratch).token;
  EXPECT_TRUE(token == 0 || token == 2) << token
                                        << ": half the mass of three equals is the first two that may be drawn";
}

}  // namespace sampling_test
}  // namespace optserve::sampling

// Compares the whole chain with a naive one in double precision with full sorts, written from the definitions, and the
// frequencies of draws with its distributions.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "sampling/draw_case.h"
#include "sampling/logit_steps.h"
#include "sampling/random.h"
#include "sampling/validate_params.h"

namespace optserve::sampling {
namespace sampling_chain_test {

constexpr double kNever = -INFINITY;

// --- the naive chain

std::vector<double> naive_edited(const std::vector<float>& logits, const DrawCase& c) {
  const SamplingParams& p = c.params;
  std::vector<double> out(logits.begin(), logits.end());
  const auto vocab = static_cast<TokenId>(out.size());
  std::map<TokenId, double> bias;
  for (const TokenBias& b : c.rules.logit_bias) bias[b.id] = static_cast<double>(b.bias);
  const bool first = p.profile != SamplingProfile::kDefault && p.temperature > 0;
  const bool ft = p.profile == SamplingProfile::kFasterTransformer, metaseq = p.profile == SamplingProfile::kMetaseq;
  for (TokenId id = 0; id < vocab; ++id) {
    double& l = out[static_cast<size_t>(id)];
    const auto in_prompt = std::count(c.history.begin(), c.history.begin() + c.prompt_tokens, id);
    const auto in_output = std::count(c.history.begin() + c.prompt_tokens, c.history.end(), id);
    if (bias.contains(id)) l += bias[id];
    if (first && p.temperature != 1) l /= static_cast<double>(p.temperature) + (ft ? 1e-6 : 0);
    if (in_prompt + in_output > 0 && !metaseq) {
      l = l > 0 ? l / static_cast<double>(p.repetition_penalty) : l * static_cast<double>(p.repetition_penalty);
    }
    const auto charge = [&](float value) {
      return metaseq ? std::max(0.0, static_cast<double>(value)) : static_cast<double>(value);
    };
    if (in_output > 0 || (ft && in_prompt > 0)) l -= charge(p.presence_penalty);
    l -= charge(p.frequency_penalty) * static_cast<double>(in_output);
    if (in_prompt > 0) l -= charge(p.prompt_presence_penalty);
    l -= charge(p.prompt_frequency_penalty) * static_cast<double>(in_prompt);

    const auto listed = [&](const std::vector<TokenId>& ids) { return std::ranges::find(ids, id) != ids.end(); };
    bool hidden = id == 1 || (!c.allow_end && (id == 2 || listed(c.rules.stop_ids)));
    hidden |= !c.rules.allowed_ids.empty() && !listed(c.rules.allowed_ids);
    hidden |= bias.contains(id) && bias[id] <= -100;
    for (const auto& word : c.rules.bad_words) {
      std::vector<TokenId> with = c.history;
      with.push_back(id);
      hidden |= with.size() >= word.size() && std::equal(word.rbegin(), word.rend(), with.rbegin());
    }
    if (hidden) l = kNever;
  }
  return out;
}

// Ids from best to worst, lower ids first among equals.
std::vector<size_t> ranked(const std::vector<double>& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](size_t a, size_t b) { return values[a] > values[b]; });
  return order;
}

double naive_top_p(const DrawCase& c) {
  double p = static_cast<double>(c.params.top_p);
  int64_t since = 0;
  for (auto i = static_cast<int64_t>(c.history.size()) - 1; i >= c.prompt_tokens; --i, ++since) {
    const auto& resets = c.rules.top_p_reset_ids;
    if (std::ranges::find(resets, c.history[static_cast<size_t>(i)]) != resets.end()) break;
  }
  for (int64_t i = c.params.top_p_decay_after; i < since; ++i) {
    p = std::max(p * static_cast<double>(c.params.top_p_decay), static_cast<double>(c.params.top_p_min));
  }
  return p;
}

// Keeps only the first of `weights`, in `order`, that together reach the share `p` of all.
void keep_mass(std::vector<double>& weights, const std::vector<size_t>& order, double p, bool part) {
  const double wanted = p * std::accumulate(weights.begin(), weights.end(), 0.0);
  double sum = 0;
  for (const size_t id : order) {
    const double before = sum;
    sum += weights[id];
    if (before >= wanted) {
      weights[id] = 0;
    } else if (sum > wanted && part) {
      weights[id] = wanted - before;
    }
  }
}

// The probability of each id; a greedy case has all mass on one id.
std::vector<double> naive_distribution(const std::vector<float>& logits, const DrawCase& c) {
  const SamplingParams& p = c.params;
  const std::vector<double> edited = naive_edited(logits, c);
  const std::vector<size_t> order = ranked(edited);
  std::vector<double> weights(edited.size());
  if (p.temperature == 0 || p.top_k == 1) {
    weights[order[0]] = edited[order[0]] > kNever ? 1 : 0;
    return weights;
  }
  const double temperature = p.profile == SamplingProfile::kDefault ? static_cast<double>(p.temperature) : 1;
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = std::exp((edited[i] - edited[order[0]]) / temperature);
  for (double& weight : weights) weight = weight < static_cast<double>(p.min_p) ? 0 : weight;
  for (size_t rank = 0; rank < order.size(); ++rank) {
    if (p.top_k > 0 && rank >= static_cast<size_t>(p.top_k)) weights[order[rank]] = 0;
  }
  const double top_p = naive_top_p(c);
  if (top_p < 1) keep_mass(weights, order, top_p, p.profile == SamplingProfile::kFasterTransformer);
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  if (p.typical_p < 1) {
    double entropy = 0;
    for (const double w : weights) entropy -= w > 0 ? w / total * std::log(w / total) : 0;
    std::vector<double> nearness(weights.size(), kNever);
    for (size_t i = 0; i < weights.size(); ++i) {
      if (weights[i] > 0) nearness[i] = -std::abs(-std::log(weights[i] / total) - entropy);
    }
    keep_mass(weights, ranked(nearness), static_cast<double>(p.typical_p), false);
  }
  const double left = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (double& weight : weights) weight = left > 0 ? weight / left : 0;
  return weights;
}

class SamplingChain : public testing::Test {
 protected:
  SamplingChain() : seed_(std::random_device{}()), random_(seed_) {}
  ~SamplingChain() override {
    if (HasFailure()) std::printf("seed %u\n", seed_);
  }
  int64_t pick(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random_); }
  bool chance(int percent) { return pick(1, 100) <= percent; }
  float real(double low, double high) {
    return static_cast<float>(std::uniform_real_distribution<double>(low, high)(random_));
  }
  std::vector<TokenId> ids(int64_t n, int64_t vocab) {
    std::vector<TokenId> out;
    for (; n > 0; --n) out.push_back(static_cast<TokenId>(pick(0, vocab - 1)));
    return out;
  }
  std::vector<float> logits(int64_t vocab) {
    std::normal_distribution<float> normal(0, 3);
    std::vector<float> out(static_cast<size_t>(vocab));
    for (float& l : out) l = normal(random_);
    return out;
  }

  SamplingParams any_params() {
    SamplingParams p;
    p.temperature = chance(10) ? 0.0f : chance(20) ? 1.0f : real(0.2, 2);
    if (chance(40)) p.top_k = static_cast<int32_t>(pick(1, 40));
    if (chance(40)) p.top_p = real(0.05, 1);
    if (chance(25)) p.min_p = real(0, 0.3);
    if (chance(25)) p.typical_p = real(0.1, 1);
    if (chance(25)) p.top_p_decay = real(0.5, 1), p.top_p_min = real(0.01, 0.2);
    if (chance(25)) p.top_p_decay_after = static_cast<int32_t>(pick(0, 3));
    if (chance(40)) p.repetition_penalty = real(0.5, 3);
    if (chance(30)) p.presence_penalty = real(-2, 2);
    if (chance(30)) p.frequency_penalty = real(-2, 2);
    if (chance(20)) p.prompt_presence_penalty = real(-2, 2);
    if (chance(20)) p.prompt_frequency_penalty = real(-2, 2);
    p.seed = random_();
    p.profile = static_cast<SamplingProfile>(pick(0, 2));
    return p;
  }
  TokenRules any_rules(int64_t vocab, const std::vector<TokenId>& history) {
    TokenRules rules;
    if (chance(20)) rules.allowed_ids = ids(pick(1, 30), vocab);
    for (int64_t n = chance(40) ? pick(1, 5) : 0; n > 0; --n) {
      rules.logit_bias.push_back({static_cast<TokenId>(pick(0, vocab - 1)), chance(20) ? -100.0f : real(-5, 5)});
    }
    for (int64_t n = chance(40) ? pick(1, 5) : 0; n > 0; --n) {
      auto word = ids(pick(1, 3), vocab);
      // Often a word that has already begun.
      const size_t begun = std::min(word.size() - 1, history.size());
      if (chance(60)) {
        std::copy_n(history.end() - static_cast<ptrdiff_t>(begun), begun,
                    word.end() - 1 - static_cast<ptrdiff_t>(begun));
      }
      rules.bad_words.push_back(std::move(word));
    }
    if (chance(30)) rules.stop_ids = ids(pick(1, 4), vocab);
    if (chance(30)) rules.top_p_reset_ids = ids(pick(1, 4), vocab);
    return rules;
  }
  DrawCase any_case(int64_t vocab) {
    DrawCase c;
    c.params = any_params();
    c.history = ids(pick(0, 40), vocab);
    c.prompt_tokens = pick(0, static_cast<int64_t>(c.history.size()));
    c.rules = any_rules(vocab, c.history);
    c.allow_end = chance(50);
    return c;
  }

  // The statistic of a chi-square test and its degrees of freedom. Ids that are expected fewer than five times are
  // combined.
  static std::pair<double, int> chi_square(const std::vector<int>& found, const std::vector<double>& expected,
                                           int draws) {
    double statistic = 0, rest_expected = 0, rest_found = 0;
    int cells = 0;
    const auto add = [&](double f, double e) { statistic += (f - e) * (f - e) / e, ++cells; };
    for (size_t i = 0; i < found.size(); ++i) {
      const double e = expected[i] * draws;
      if (e >= 5) {
        add(found[i], e);
      } else {
        rest_expected += e, rest_found += found[i];
      }
    }
    if (rest_expected > 0.5) add(rest_found, rest_expected);
    return {statistic, cells - 1};
  }
  // Approximately the value that is exceeded by chance once in ten million tests (Wilson and Hilferty's approximation).
  static double limit(int degrees) {
    const double k = std::max(1, degrees), z = 5.2;
    return k * std::pow(1 - 2 / (9 * k) + z * std::sqrt(2 / (9 * k)), 3);
  }
  std::vector<int> frequencies(const std::vector<float>& logits, DrawCase c, int draws) {
    std::vector<int> found(logits.size());
    SamplerScratch scratch(static_cast<int64_t>(logits.size()));
    SampleRow row = c.row();
    for (int i = 0; i < draws; ++i) {
      row.params.seed = random_();
      const DrawnToken drawn = draw_token(logits, row, drawable(static_cast<int64_t>(logits.size())), scratch);
      if (drawn.token >= 0) ++found[static_cast<size_t>(drawn.token)];
    }
    return found;
  }

  unsigned seed_;
  std::mt19937_64 random_;
};

TEST_F(SamplingChain, DrawsWhatTheNaiveChainDraws) {
  int compared = 0, different = 0;
  for (int round = 0; round < 4'000; ++round) {
    const int64_t vocab = pick(3, 700);
    auto l = logits(vocab);
    if (chance(50)) std::ranges::for_each(l, [](float& x) { x = std::round(x); });  // ties
    DrawCase c = any_case(vocab);
    SamplerScratch scratch(vocab);
    const DrawnToken drawn = draw_token(l, c.row(), drawable(vocab), scratch);
    const auto expected = naive_distribution(l, c);
    const double mass = std::accumulate(expected.begin(), expected.end(), 0.0);
    if (mass == 0) {
      ASSERT_EQ(drawn.token, -1) << "round " << round;
      continue;
    }
    const double uniform = uniform_at(c.params.seed, c.history.size());
    double running = 0;
    TokenId wanted = -1;
    for (size_t i = 0; i < expected.size() && wanted < 0; ++i) {
      running += expected[i];
      if (expected[i] > 0 && running >= uniform * mass * (1 - 1e-12)) wanted = static_cast<TokenId>(i);
    }
    ++compared;
    different += drawn.token != wanted;
  }
  EXPECT_GT(compared, 2'000);
  EXPECT_LE(different, 4) << "of " << compared;  // a sum within rounding of a limit
}

TEST_F(SamplingChain, FrequenciesFollowTheDistribution) {
  constexpr int kDraws = 20'000;
  std::vector<std::pair<const char*, SamplingParams>> methods{
      {"temperature", {.temperature = 0.7f}},
      {"top-k", {.top_k = 12}},
      {"top-p", {.top_p = 0.8f}},
      {"min-p", {.min_p = 0.05f}},
      {"typical-p", {.typical_p = 0.7f}},
      {"decay", {.top_p = 0.9f, .top_p_decay = 0.9f, .top_p_min = 0.3f}},
      {"repetition", {.repetition_penalty = 1.5f}},
      {"presence", {.presence_penalty = 1}},
      {"frequency", {.frequency_penalty = 0.7f}},
      {"of the prompt", {.prompt_presence_penalty = 1, .prompt_frequency_penalty = 0.3f}}};
  const auto profiles = {SamplingProfile::kFasterTransformer, SamplingProfile::kMetaseq};
  for (const auto profile : profiles) {
    methods.push_back({"profile",
                       {.temperature = 1.3f,
                        .top_k = 20,
                        .top_p = 0.7f,
                        .repetition_penalty = 1.4f,
                        .presence_penalty = 0.5f,
                        .profile = profile}});
  }
  const auto l = logits(61);
  for (const auto& [name, params] : methods) {
    DrawCase c = any_case(61);
    c.params = params;
    c.rules = {};
    const auto expected = naive_distribution(l, c);
    const auto [statistic, degrees] = chi_square(frequencies(l, c, kDraws), expected, kDraws);
    EXPECT_LT(statistic, limit(degrees)) << name << ", " << degrees << " degrees of freedom";
  }
}

// The check above can fail: it detects frequencies of a different temperature.
TEST_F(SamplingChain, AnotherDistributionIsNoticed) {
  constexpr int kDraws = 20'000;
  const auto l = logits(61);
  DrawCase c, other;
  c.params.temperature = 1.0f;
  other.params.temperature = 1.1f;
  const auto [statistic, degrees] = chi_square(frequencies(l, other, kDraws), naive_distribution(l, c), kDraws);
  EXPECT_GT(statistic, limit(degrees));
}

TEST_F(SamplingChain, SurvivesUglyLogits) {
  const float huge = 3e38f, nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  for (int round = 0; round < 500; ++round) {
    const int64_t vocab = pick(3, 80);
    std::vector<std::vector<float>> rows(6, std::vector<float>(static_cast<size_t>(vocab), 0.5f));
    rows[1][static_cast<size_t>(pick(0, vocab - 1))] = 100;  // all mass on one
    for (float& l : rows[2]) l = chance(50) ? huge : -huge;
    for (float& l : rows[3]) l = static_cast<float>(pick(0, 2));  // ties
    rows[4][static_cast<size_t>(pick(0, vocab - 1))] = nan;
    rows[5][static_cast<size_t>(pick(0, vocab - 1))] = chance(50) ? inf : -inf;
    for (size_t i = 0; i < rows.size(); ++i) {
      DrawCase c = any_case(vocab);
      SamplerScratch scratch(vocab);
      const DrawnToken drawn = draw_token(rows[i], c.row(), drawable(vocab), scratch);
      if (i >= 4) {
        ASSERT_EQ(drawn.token, -1);
      }
      if (drawn.token < 0) continue;
      ASSERT_LT(drawn.token, vocab);
      ASSERT_TRUE(std::isfinite(drawn.logprob));
      ASSERT_GT(naive_edited(rows[i], c)[static_cast<size_t>(drawn.token)], kNever) << "a hidden id was drawn";
    }
  }
}

// A valid request always gets a token, however small its numbers are; otherwise it would fail again and again.
TEST_F(SamplingChain, DrawsWithParametersAtTheEndsOfTheirRanges) {
  constexpr float kTiny = 1e-44f;
  const auto one_of = [&](std::vector<float> values) {
    return values[static_cast<size_t>(pick(0, static_cast<int64_t>(values.size()) - 1))];
  };
  for (int round = 0; round < 3'000; ++round) {
    const int64_t vocab = pick(3, 80);
    DrawCase c;
    c.params.temperature = one_of({kTiny, 1e-6f, 1, 2});
    c.params.top_k = static_cast<int32_t>(pick(0, 3));
    c.params.top_p = one_of({kTiny, 1e-7f, 0.5f, 1});
    c.params.min_p = one_of({0, kTiny, 1});
    c.params.typical_p = one_of({kTiny, 0.5f, 1});
    c.params.top_p_decay = one_of({kTiny, 0.5f, 1});
    c.params.repetition_penalty = one_of({kTiny, 1, 10});
    c.params.presence_penalty = one_of({-2, 0, 2});
    c.params.frequency_penalty = one_of({-2, 0, 2});
    c.params.profile = static_cast<SamplingProfile>(pick(0, 2));
    c.params.seed = random_();
    c.history = ids(pick(0, 300), vocab);
    for (int64_t n = pick(0, 4); n > 0; --n) {
      c.rules.logit_bias.push_back({static_cast<TokenId>(pick(0, vocab - 1)), one_of({-99, 99})});
    }
    SamplerScratch scratch(vocab);
    const DrawnToken drawn = draw_token(logits(vocab), c.row(), drawable(vocab), scratch);
    ASSERT_GE(drawn.token, 0) << "round " << round << ", top_p " << c.params.top_p << ", decay " << c.params.top_p_decay
                              << ", profile " << sampling_profile_name(c.params.profile);
    ASSERT_TRUE(std::isfinite(drawn.logprob));
  }
}

TEST_F(SamplingChain, BestTokensAreTheSortedOnes) {
  for (int round = 0; round < 300; ++round) {
    const int64_t vocab = pick(1, 300);
    auto l = logits(vocab);
    if (chance(30)) std::ranges::for_each(l, [](float& x) { x = std::round(x); });
    SamplerScratch scratch(vocab);
    std::vector<TokenId> best(static_cast<size_t>(pick(1, 20)), -7);
    std::vector<float> logprobs(best.size(), -7);
    best_tokens(l, best, logprobs, scratch);
    const auto order = ranked(std::vector<double>(l.begin(), l.end()));
    for (size_t i = 0; i < best.size(); ++i) {
      ASSERT_EQ(best[i], i < order.size() ? static_cast<TokenId>(order[i]) : -1);
      if (i < order.size()) {
        ASSERT_NEAR(logprobs[i], log_probability(l, best[i]), 1e-4);
      }
    }
  }
}

TEST_F(SamplingChain, MinPOfOneKeepsTheBestOnes) {
  const std::vector<float> l{0, 9, 9, 2, 2, 1.5f};  // 1 is the pad id
  DrawCase c;
  c.params = {.temperature = 0.7f, .min_p = 1};
  c.rules.logit_bias = {{2, -100}};
  const auto found = frequencies(l, c, 2'000);
  EXPECT_EQ(found[3] + found[4], 2'000);
  EXPECT_GT(std::min(found[3], found[4]), 500);
}

}  // namespace sampling_chain_test
}  // namespace optserve::sampling

// What the profiles of other systems do differently, with one test for each difference.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "sampling/draw_case.h"
#include "sampling/logit_steps.h"
#include "sampling/validate_params.h"

namespace optserve::sampling {
namespace sampling_profiles_test {

TokenId drawn(const std::vector<float>& logits, DrawCase& c) {
  SamplerScratch scratch(static_cast<int64_t>(logits.size()));
  return draw_token(logits, c.row(), drawable(scratch.vocab()), scratch).token;
}

TEST(SamplingProfiles, TheLeastTemperatureTellsLogitsApart) {
  const std::vector<float> l{0, 0, 0, 3, 4, -5};
  SamplerScratch scratch(6);
  for (const auto profile :
       {SamplingProfile::kDefault, SamplingProfile::kFasterTransformer, SamplingProfile::kMetaseq}) {
    for (const float temperature : {1e-42f, 1e-20f, 1e-6f, 1e-3f}) {
      DrawCase c;
      c.params = {.temperature = temperature, .profile = profile};
      SampleRow row = c.row();
      for (row.params.seed = 0; row.params.seed < 50; ++row.params.seed) {
        ASSERT_EQ(draw_token(l, row, drawable(6), scratch).token, 4)
            << temperature << ' ' << sampling_profile_name(profile);
      }
    }
  }
}

TEST(SamplingProfiles, FasterTransformerAddsToTheTemperature) {
  // The distance of two logits that are 1e-6 apart is halved at a temperature of 1e-6.
  const std::vector<float> l{-9, -9, -9, 2e-6f, 0};
  SamplerScratch scratch(5);
  const auto share = [&](SamplingProfile profile) {
    DrawCase c;
    c.params = {.temperature = 1e-6f, .profile = profile};
    SampleRow row = c.row();
    int best = 0;
    for (row.params.seed = 0; row.params.seed < 20'000; ++row.params.seed) {
      best += draw_token(l, row, drawable(5), scratch).token == 3;
    }
    return best / 20'000.0;
  };
  EXPECT_NEAR(share(SamplingProfile::kDefault), 1 / (1 + std::exp(-2.0)), 0.02);
  EXPECT_NEAR(share(SamplingProfile::kMetaseq), 1 / (1 + std::exp(-2.0)), 0.02);
  EXPECT_NEAR(share(SamplingProfile::kFasterTransformer), 1 / (1 + std::exp(-1.0)), 0.02);
}

TEST(SamplingProfiles, TopK1StillDividesBeforeItPenalises) {
  const std::vector<float> l{0, 0, 0, 3, 2};
  DrawCase c;
  c.history = {3};
  c.params = {.temperature = 0.5f, .top_k = 1, .presence_penalty = 1.5f};
  EXPECT_EQ(drawn(l, c), 4);
  c.params.profile = SamplingProfile::kFasterTransformer;  // 6 - 1.5 against 4
  EXPECT_EQ(drawn(l, c), 3);
  c.params.temperature = 0;  // divides nothing
  EXPECT_EQ(drawn(l, c), 4);
}

TEST(SamplingProfiles, MetaseqIgnoresPenaltiesBelowZero) {
  const std::vector<float> l{0, 0, 0, 1, 2};
  DrawCase c;
  c.history = {3};
  c.params = {.temperature = 1, .top_k = 2, .presence_penalty = -2, .profile = SamplingProfile::kMetaseq};
  c.params.top_p = 1e-6f;  // the best one
  EXPECT_EQ(drawn(l, c), 4);
  c.params.profile = SamplingProfile::kDefault;
  EXPECT_EQ(drawn(l, c), 3);
}

TEST(SamplingProfiles, FasterTransformerDividesBeforeItPenalises) {
  // l / T - a and (l - a) / T order the two differently.
  const std::vector<float> l{0, 0, 0, 3, 2};
  DrawCase c;
  c.history = {3};
  c.prompt_tokens = 1;  // its presence penalty counts the prompt too
  c.params = {.temperature = 0.5f, .top_p = 1e-6f, .presence_penalty = 1.5f};
  c.params.profile = SamplingProfile::kFasterTransformer;
  EXPECT_EQ(drawn(l, c), 3);
  c.params.profile = SamplingProfile::kDefault;
  c.params.prompt_presence_penalty = 1.5f;
  EXPECT_EQ(drawn(l, c), 4);
}

TEST(SamplingProfiles, FasterTransformerCutsWithinTheLastToken) {
  const std::vector<float> l{std::log(0.6f), -50, -50, std::log(0.4f)};
  SamplerScratch scratch(4);
  const auto share = [&](SamplingProfile profile) {
    DrawCase c;
    c.params = {.top_p = 0.8f, .profile = profile};
    SampleRow row = c.row();
    int second = 0;
    for (uint64_t seed = 0; seed < 20'000; ++seed) {
      row.params.seed = seed;
      second += draw_token(l, row, drawable(4), scratch).token == 3;
    }
    return second / 20'000.0;
  };
  EXPECT_NEAR(share(SamplingProfile::kFasterTransformer), 0.25, 0.02);  // 0.2 of 0.8
  EXPECT_NEAR(share(SamplingProfile::kDefault), 0.4, 0.02);
}

TEST(SamplingProfiles, TopPDecaysAndStartsAgain) {
  DrawCase c;
  c.params = {.top_p = 0.8f, .top_p_decay = 0.5f, .top_p_min = 0.15f};
  c.rules.top_p_reset_ids = {9};
  const auto p = [&](std::vector<TokenId> history) {
    c.history = std::move(history);
    c.prompt_tokens = 1;
    return logit_steps::effective_top_p(c.row());
  };
  EXPECT_FLOAT_EQ(p({5}), 0.8f);
  EXPECT_FLOAT_EQ(p({9, 5}), 0.4f);
  EXPECT_FLOAT_EQ(p({5, 5, 5}), 0.2f);
  EXPECT_FLOAT_EQ(p({5, 5, 5, 5}), 0.15f);
  EXPECT_FLOAT_EQ(p({5, 5, 5, 9}), 0.8f);
  EXPECT_FLOAT_EQ(p({5, 5, 9, 5}), 0.4f);
  c.params = {.top_p = 0.1f, .top_p_min = 0.3f};  // the minimum is above it, as in Metaseq
  EXPECT_FLOAT_EQ(p({9}), 0.1f);
  EXPECT_FLOAT_EQ(p({9, 5}), 0.3f);
  c.params = {.top_p = 0.8f, .top_p_decay = 0.5f, .top_p_min = 0.15f};
  c.params.top_p_decay_after = 1;  // Metaseq's factual nucleus
  EXPECT_FLOAT_EQ(p({5, 5, 9, 5}), 0.8f);
  EXPECT_FLOAT_EQ(p({5, 9, 5, 5}), 0.4f);
}

}  // namespace sampling_profiles_test
}  // namespace optserve::sampling

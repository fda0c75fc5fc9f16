#include "sampling/drawable.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "sampling/logit_steps.h"

namespace optserve::sampling {
namespace drawable_test {

constexpr DrawableIds kIds{10, 2, 1};

bool leaves_some(const TokenRules& rules, int32_t min_new_tokens = 0, const std::vector<TokenId>& history = {2},
                 int64_t generated = 0) {
  SamplingParams params;
  params.min_new_tokens = min_new_tokens;
  return check_drawable(params, rules, history, generated, kIds).ok();
}

TEST(Drawable, WhatForbidsEveryTokenIsRefusedWithItsReason) {
  EXPECT_FALSE(leaves_some({.allowed_ids = {1}}));  // padding
  EXPECT_FALSE(leaves_some({.allowed_ids = {2}}, 3));
  EXPECT_TRUE(leaves_some({.allowed_ids = {2}}, 3, {2, 5, 5, 5}, 3));
  EXPECT_FALSE(leaves_some({.allowed_ids = {5}, .stop_ids = {5}}, 1));
  EXPECT_FALSE(leaves_some({.allowed_ids = {5, 6}, .logit_bias = {{5, -100}}, .bad_words = {{6}}}));
  EXPECT_TRUE(leaves_some({.allowed_ids = {5}, .logit_bias = {{5, -100}, {5, 1}}}));  // the last one counts
  EXPECT_TRUE(leaves_some({.allowed_ids = {5}, .bad_words = {{5, 5}}}));
  EXPECT_FALSE(leaves_some({.allowed_ids = {5}, .bad_words = {{5, 5}}}, 0, {2, 5}, 1));
  TokenRules all;
  for (TokenId id = 0; id < 10; ++id) {
    if (id != 1 && id != 2) all.bad_words.push_back({id});
  }
  EXPECT_TRUE(leaves_some(all));
  EXPECT_FALSE(leaves_some(all, 1));
  const Status status = check_drawable({}, {.allowed_ids = {1}}, {}, 4, kIds);
  EXPECT_THAT(status.refusal().message, ::testing::HasSubstr("no token for place 5 of its output"));
  EXPECT_EQ(status.refusal().code, ErrorCode::kBadRequest);
}

// The masks of the sampler decide; this only counts what they leave.
TEST(Drawable, AgreesWithTheMasksForRandomRules) {
  std::mt19937_64 random(std::random_device{}());
  const auto ids = [&](size_t most) {
    std::vector<TokenId> list(random() % (most + 1));
    for (TokenId& id : list) id = static_cast<TokenId>(random() % 10);
    return list;
  };
  int none = 0;
  for (int i = 0; i < 20'000; ++i) {
    SampleRow row;
    row.params.min_new_tokens = static_cast<int32_t>(random() % 3);
    TokenRules rules{.allowed_ids = ids(3), .stop_ids = ids(2)};
    for (const TokenId id : ids(3)) rules.logit_bias.push_back({id, random() % 2 == 0 ? -100.0f : 5.0f});
    for (size_t word = random() % 12; word > 0; --word) {
      rules.bad_words.push_back(ids(1));
      rules.bad_words.back().push_back(static_cast<TokenId>(random() % 10));
    }
    std::vector<TokenId> history = ids(4);
    history.push_back(3);
    const auto generated = static_cast<int64_t>(random() % history.size());
    const std::vector<int32_t> packed = pack(rules);
    row.history = history;
    row.rules = packed;
    row.allow_end = generated >= row.params.min_new_tokens;
    std::vector<float> logits(10, 0.0f);
    logit_steps::mask(logits, row, kIds);
    const bool is_any = std::ranges::any_of(logits, [](float logit) { return std::isfinite(logit); });
    ASSERT_EQ(check_drawable(row.params, rules, history, generated, kIds).ok(), is_any);
    none += is_any ? 0 : 1;
  }
  EXPECT_GT(none, 100);
}

}  // namespace drawable_test
}  // namespace optserve::sampling

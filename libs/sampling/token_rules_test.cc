#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/limits.h"
#include "sampling/packed_rules.h"

namespace optserve::sampling {
namespace token_rules_test {

using testing::ElementsAre;
using testing::HasSubstr;

std::string refusal(const TokenRules& rules, int64_t vocab = 100) {
  const Status status = validate(rules, vocab);
  return status.ok() ? "" : status.refusal().message;
}

TEST(TokenRules, EmptyOnesArePackedToNothing) {
  EXPECT_TRUE(pack({}).empty());
  EXPECT_EQ(refusal({}), "");
  const RuleView none(std::span<const int32_t>{});
  EXPECT_EQ(none.num_entries(), 0);
  EXPECT_EQ(none.num_bad_words(), 0);
  EXPECT_TRUE(none.reset_ids().empty());
  EXPECT_FALSE(none.only_allowed());
}

TEST(TokenRules, ThePackedFormHasThemAll) {
  TokenRules rules;
  rules.allowed_ids = {40, 7};
  rules.logit_bias = {{7, 1}, {50, -100}, {7, 2.5f}};
  rules.bad_words = {{8, 9}, {7}, {1, 2, 3}};
  rules.stop_ids = {40};
  rules.top_p_reset_ids = {4, 6};
  const auto words = pack(rules);
  const RuleView view(words);
  EXPECT_TRUE(view.only_allowed());
  ASSERT_EQ(view.num_entries(), 3);
  EXPECT_EQ(view.entry(0).id, 7);
  EXPECT_EQ(view.entry(0).bias, 2.5f);
  EXPECT_EQ(view.entry(0).bits, kRuleAllowed | kRuleBanned);
  EXPECT_EQ(view.entry(1).id, 40);
  EXPECT_EQ(view.entry(1).bits, kRuleAllowed | kRuleStop);
  EXPECT_EQ(view.entry(2).id, 50);
  EXPECT_EQ(view.entry(2).bits, kRuleBanned);
  EXPECT_THAT(std::vector<TokenId>(view.reset_ids().begin(), view.reset_ids().end()), ElementsAre(4, 6));
  ASSERT_EQ(view.num_bad_words(), 2);
  EXPECT_EQ(std::vector<TokenId>(view.bad_word(0).begin(), view.bad_word(0).end()), (std::vector<TokenId>{8, 9}));
  EXPECT_EQ(std::vector<TokenId>(view.bad_word(1).begin(), view.bad_word(1).end()), (std::vector<TokenId>{1, 2, 3}));
}

TEST(TokenRules, WhatCannotBeIsRefusedWithItsName) {
  EXPECT_THAT(refusal({.allowed_ids = {100}}), HasSubstr("allowed_ids"));
  EXPECT_EQ(refusal({.allowed_ids = {100}}, 0), "");
  EXPECT_THAT(refusal({.allowed_ids = {-1}}, 0), HasSubstr("allowed_ids"));
  EXPECT_THAT(refusal({.logit_bias = {{5, 100.5f}}}), HasSubstr("logit_bias"));
  EXPECT_THAT(refusal({.logit_bias = {{5, std::numeric_limits<float>::quiet_NaN()}}}), HasSubstr("logit_bias"));
  EXPECT_EQ(refusal({.logit_bias = {{5, -100}}}), "");
  EXPECT_THAT(refusal({.logit_bias = {{-5, 1}}}), HasSubstr("logit_bias"));
  EXPECT_THAT(refusal({.bad_words = {{}}}), HasSubstr("bad_words"));
  EXPECT_THAT(refusal({.bad_words = {{1, 100}}}), HasSubstr("bad_words"));
  EXPECT_THAT(refusal({.stop_ids = std::vector<TokenId>(limits::kStopIdsMax + 1, 5)}), HasSubstr("stop_ids"));
  EXPECT_EQ(refusal({.stop_ids = std::vector<TokenId>(limits::kStopIdsMax, 5)}), "");
  EXPECT_THAT(refusal({.top_p_reset_ids = std::vector<TokenId>(limits::kStopIdsMax + 1, 5)}), HasSubstr("top_p_reset"));
  EXPECT_EQ(refusal({.top_p_reset_ids = std::vector<TokenId>(limits::kStopIdsMax, 5)}), "");
  EXPECT_EQ(refusal({.logit_bias = {{5, 100}}}), "");
}

TEST(TokenRules, WhatDoesNotFitIsRefused) {
  TokenRules rules;
  const auto entries = static_cast<TokenId>((limits::kTokenRulesWordsMax - kRuleHeaderWords) / kRuleEntryWords);
  for (TokenId id = 0; id < entries; ++id) rules.allowed_ids.push_back(id);
  EXPECT_EQ(refusal(rules, 50'000), "");
  EXPECT_LE(pack(rules).size(), limits::kTokenRulesWordsMax);
  rules.allowed_ids.push_back(entries);
  EXPECT_THAT(refusal(rules, 50'000), HasSubstr("together"));
  TokenRules words;  // of two ids and their length
  while (refusal(words, 50'000).empty() && words.bad_words.size() < 10'000) words.bad_words.push_back({3, 4});
  EXPECT_THAT(refusal(words, 50'000), HasSubstr("together"));
  words.bad_words.pop_back();
  EXPECT_LE(pack(words).size(), limits::kTokenRulesWordsMax);
  EXPECT_GT(pack(words).size(), limits::kTokenRulesWordsMax - 8);
}

}  // namespace token_rules_test
}  // namespace optserve::sampling

#include "batching/step_plan.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>

namespace optserve::batching {
namespace step_plan_test {

StepPlan sample_plan() {
  StepPlan plan;
  plan.step = std::numeric_limits<uint64_t>::max();
  plan.released = {0, 5};
  AdmittedSlot slot{.slot = 3, .prompt_tokens = 12, .sampling = {}};
  slot.sampling.temperature = 0.7f;
  slot.sampling.top_k = 40;
  slot.sampling.top_p = 0.9f;
  slot.sampling.repetition_penalty = 1.2f;
  slot.sampling.presence_penalty = -1.5f;
  slot.sampling.frequency_penalty = 0.25f;
  slot.sampling.min_new_tokens = 4;
  slot.sampling.ignore_eos = true;
  slot.sampling.seed = 0xfedcba9876543210ull;
  slot.sampling.profile = sampling::SamplingProfile::kMetaseq;
  slot.sampling.logprobs = 5;
  slot.rules = {1, 0, 0, 0, 7, -3, 2};
  slot.cached = {2, 9, 8};
  plan.admitted.push_back(slot);
  plan.work.push_back({3, 0, 3, {2, 50271, 7}, {9, 8}, true, {50271, 7, -1}, {}, 20});
  plan.work.push_back({1, 2047, 1, {}, {}, true, {}});
  plan.work.push_back({2, 7, 3, {}, {}, true, {}, {50271, 4}});
  return plan;
}

bool same(const StepPlan& a, const StepPlan& b) {
  if (a.step != b.step || a.released != b.released || a.admitted.size() != b.admitted.size()) return false;
  for (size_t i = 0; i < a.admitted.size(); ++i) {
    const AdmittedSlot &x = a.admitted[i], &y = b.admitted[i];
    if (x.slot != y.slot || x.prompt_tokens != y.prompt_tokens || !(x.sampling == y.sampling) || x.rules != y.rules ||
        x.cached != y.cached) {
      return false;
    }
  }
  if (a.work.size() != b.work.size()) return false;
  for (size_t i = 0; i < a.work.size(); ++i) {
    const SlotWork &x = a.work[i], &y = b.work[i];
    if (x.slot != y.slot || x.start != y.start || x.num_tokens != y.num_tokens || x.tokens != y.tokens ||
        x.new_blocks != y.new_blocks || x.sample != y.sample || x.logprob_targets != y.logprob_targets ||
        x.drafts != y.drafts || x.target_best != y.target_best) {
      return false;
    }
  }
  return true;
}

TEST(StepPlan, RoundTrips) {
  const StepPlan plan = sample_plan();
  const auto decoded = decode_step_plan(encode(plan));
  ASSERT_TRUE(decoded.ok());
  EXPECT_TRUE(same(plan, decoded.value()));
  EXPECT_EQ(plan.num_tokens(), 7);
  EXPECT_TRUE(same(StepPlan{}, decode_step_plan(encode(StepPlan{})).value()));
}

TEST(StepPlan, SteadyDecodeTakesAFewBytesASequence) {
  StepPlan plan;
  for (int32_t slot = 0; slot < 256; ++slot) plan.work.push_back({slot, 1500, 1, {}, {}, true, {}});
  EXPECT_LE(encode(plan).size(), 10u * 256);
}

TEST(StepPlan, RefusesEveryTruncationAndTrailingBytes) {
  std::vector<uint8_t> bytes = encode(sample_plan());
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_FALSE(decode_step_plan(std::span(bytes).first(length)).ok()) << length;
  }
  bytes.push_back(0);
  EXPECT_FALSE(decode_step_plan(bytes).ok());
}

TEST(StepPlan, SurvivesRandomDamage) {
  const uint64_t seed = 7;
  std::mt19937_64 random(seed);
  const std::vector<uint8_t> good = encode(sample_plan());
  for (int round = 0; round < 20'000; ++round) {
    std::vector<uint8_t> bytes = good;
    for (int i = 0; i < 3; ++i) bytes[random() % bytes.size()] = static_cast<uint8_t>(random());
    const auto decoded = decode_step_plan(bytes);  // must neither crash nor allocate beyond the input's size
    if (!decoded.ok()) continue;
    const std::vector<uint8_t> again = encode(decoded.value());
    EXPECT_EQ(encode(decode_step_plan(again).value()), again);
  }
}

}  // namespace step_plan_test
}  // namespace optserve::batching

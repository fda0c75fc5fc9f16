#include "batching/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "batching/fake_engine.h"

namespace optserve::batching {
namespace planner_test {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

PlannerOptions small() {
  return {.num_blocks = 16, .block_tokens = 4, .max_sequences = 4, .max_step_tokens = 8, .max_context = 32};
}

SequenceRequest request(SequenceId id, int prompt, int new_tokens) {
  SequenceRequest r;
  r.id = id;
  r.prompt_tokens = prompt;
  r.max_new_tokens = new_tokens;
  for (int i = 0; i < prompt; ++i) r.tokens.push_back(10 + i);
  r.sampling.ignore_eos = true;
  return r;
}

// A result that draws `token` wherever the plan draws.
StepResult result_of(const StepPlan& plan, TokenId token, bool finite = true) {
  StepResult result{.step = plan.step, .sampled = {}, .logprobs = {}};
  for (const SlotWork& work : plan.work) {
    if (!work.logprob_targets.empty()) {
      result.logprobs.push_back({work.slot, work.start, std::vector<float>(work.logprob_targets.size(), -1.0f)});
    }
    if (work.sample) result.sampled.push_back({work.slot, token, -0.5f, finite});
  }
  return result;
}

TEST(Planner, RefusesWhatCanNeverRun) {
  Planner planner(small());
  EXPECT_THAT(planner.add(request(1, 33, 1)).refusal().message,
              HasSubstr("33 tokens, but the context of the model holds only 32"));
  SequenceRequest empty;
  EXPECT_EQ(planner.add(empty).refusal().code, ErrorCode::kBadRequest);
  ASSERT_TRUE(planner.add(request(2, 3, 1)).ok());
  EXPECT_THAT(planner.add(request(2, 3, 1)).refusal().message, HasSubstr("is running already"));
  PlannerOptions tight = small();
  tight.num_blocks = 2;
  Planner starved(tight);
  EXPECT_THAT(starved.add(request(1, 4, 8)).refusal().message,
              HasSubstr("need 3 KV blocks, but the KV cache has only 2"));
  SequenceRequest odd = request(3, 3, 1);
  odd.prompt_tokens = 4;
  EXPECT_THAT(planner.add(odd).refusal().message, HasSubstr("says that 4 of them are the prompt"));
}

TEST(Planner, DecodesFirstAndFillsTheStepWithAChunk) {
  Planner planner(small());
  ASSERT_TRUE(planner.add(request(1, 3, 5)).ok());
  const auto first = planner.plan();
  ASSERT_TRUE(first);
  ASSERT_EQ(first->admitted.size(), 1u);
  EXPECT_THAT(first->work[0].tokens, ElementsAre(10, 11, 12));
  EXPECT_TRUE(first->work[0].sample);
  EXPECT_EQ(first->work[0].new_blocks.size(), 1u);
  ASSERT_TRUE(planner.add(request(2, 20, 5)).ok());
  const auto second = planner.plan();  // planned before the first result is known
  ASSERT_TRUE(second);
  ASSERT_EQ(second->work.size(), 2u);
  EXPECT_THAT(second->work[0].tokens, IsEmpty());
  EXPECT_EQ(second->work[0].start, 3);
  EXPECT_EQ(second->work[1].num_tokens, 7);
  EXPECT_FALSE(second->work[1].sample);
  EXPECT_EQ(second->work[1].new_blocks.size(), 5u);
  EXPECT_FALSE(planner.plan()) << "two steps are in flight";
  EXPECT_EQ(planner.apply(result_of(*first, 7)).size(), 1u);
  const auto third = planner.plan();
  ASSERT_TRUE(third);
  EXPECT_EQ(third->work[1].start, 7);
  EXPECT_EQ(planner.check_invariants(), "");
}

TEST(Planner, DiscardsWhatWasPlannedPastTheEndOfText) {
  Planner planner(small());
  SequenceRequest r = request(1, 3, 5);
  r.sampling.ignore_eos = false;
  ASSERT_TRUE(planner.add(r).ok());
  const auto first = planner.plan();
  const auto second = planner.plan();
  ASSERT_TRUE(first && second);
  const auto events = planner.apply(result_of(*first, 2));
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].token, 2);
  EXPECT_EQ(events[0].position, 3);
  EXPECT_EQ(events[0].finished, sampling::FinishReason::kEndOfText);
  EXPECT_THAT(planner.apply(result_of(*second, 9)), IsEmpty());
  EXPECT_FALSE(planner.has_work());
  EXPECT_EQ(planner.stats().free_blocks, 16);
  ASSERT_TRUE(planner.add(request(1, 2, 1)).ok());
  const auto next = planner.plan();
  ASSERT_TRUE(next);
  EXPECT_THAT(next->released, ElementsAre(first->work[0].slot));
}

TEST(Planner, EndsOnNonFiniteLogitsWithoutAToken) {
  Planner planner(small());
  ASSERT_TRUE(planner.add(request(1, 3, 5)).ok());
  const auto plan = planner.plan();
  const auto events = planner.apply(result_of(*plan, 9, false));
  ASSERT_EQ(events.size(), 1u);
  EXPECT_FALSE(events[0].token);
  EXPECT_EQ(events[0].finished, sampling::FinishReason::kError);
}

TEST(Planner, RefusesARequestThatForbidsEveryTokenAndEndsOneThatComesToIt) {
  PlannerOptions options = small();
  options.vocab = 100;
  Planner planner(options);
  SequenceRequest never = request(1, 3, 5);
  never.rules.allowed_ids = {2};
  never.sampling.min_new_tokens = 3;
  EXPECT_THAT(planner.add(never).refusal().message, HasSubstr("no token for place 1"));
  never.sampling.beam_width = 2;
  EXPECT_THAT(planner.add(never).refusal().message, HasSubstr("no token for place 1"));
  SequenceRequest dead_end = request(2, 3, 5);
  dead_end.rules.allowed_ids = {50};
  dead_end.rules.bad_words = {{50, 50}};
  ASSERT_TRUE(planner.add(dead_end).ok());
  EXPECT_EQ(planner.apply(result_of(*planner.plan(), 50)).at(0).token, 50);
  const auto events = planner.apply(result_of(*planner.plan(), -1, false));
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].finished, sampling::FinishReason::kError);
  ASSERT_TRUE(events[0].refused);
  EXPECT_THAT(events[0].refused->message, HasSubstr("no token for place 2"));
}

TEST(Planner, EndsABeamSearchThatComesToADeadEndWithTheReason) {
  PlannerOptions options = small();
  options.vocab = 100;
  options.max_step_tokens = 32;
  Planner planner(options);
  SequenceRequest search = request(3, 3, 5);
  search.sampling.beam_width = 2;
  search.rules.allowed_ids = {50};
  search.rules.bad_words = {{50, 50}};
  ASSERT_TRUE(planner.add(search).ok());
  StepResult first = result_of(*planner.plan(), 50);
  first.sampled.at(0).best = {{50, -0.5f}};
  EXPECT_TRUE(planner.apply(first).empty());
  const auto events = planner.apply(result_of(*planner.plan(), -1, false));
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].id, 3u);
  EXPECT_EQ(events[0].finished, sampling::FinishReason::kError);
  ASSERT_TRUE(events[0].refused);
  EXPECT_THAT(events[0].refused->message, HasSubstr("no token for place 2"));
}

TEST(Planner, StopsAtTheContext) {
  PlannerOptions options = small();
  options.max_context = 6;
  Planner planner(options);
  ASSERT_TRUE(planner.add(request(1, 4, 100)).ok());
  std::vector<SequenceEvent> events;
  while (const auto plan = planner.plan()) {
    for (auto& event : planner.apply(result_of(*plan, 9))) events.push_back(event);
  }
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events.back().position, 5);
  EXPECT_EQ(events.back().finished, sampling::FinishReason::kLength);
}

TEST(Planner, ReportsPromptLogprobsOfChunksAndEndsWithoutDrawing) {
  Planner planner(small());
  SequenceRequest r = request(1, 12, 0);
  r.prompt_logprobs = true;
  r.prompt_best = 3;
  ASSERT_TRUE(planner.add(r).ok());
  const auto first = planner.plan();
  EXPECT_EQ(first->work[0].target_best, 3);
  EXPECT_THAT(first->work[0].logprob_targets, ElementsAre(11, 12, 13, 14, 15, 16, 17, 18));
  auto events = planner.apply(result_of(*first, 9));
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].logprobs_start, 1);
  EXPECT_EQ(events[0].prompt_logprobs.size(), 8u);
  const auto second = planner.plan();
  EXPECT_THAT(second->work[0].logprob_targets, ElementsAre(19, 20, 21, -1));
  EXPECT_FALSE(second->work[0].sample);
  events = planner.apply(result_of(*second, 9));
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].logprobs_start, 9);
  EXPECT_EQ(events[0].prompt_logprobs.size(), 3u);
  EXPECT_EQ(events[0].finished, sampling::FinishReason::kLength);
}

TEST(Planner, PreemptsTheYoungestAndResumesItWithAllItsTokens) {
  PlannerOptions options = small();
  options.num_blocks = 4;
  options.pipeline_depth = 1;
  Planner planner(options);
  ASSERT_TRUE(planner.add(request(1, 4, 12)).ok());
  ASSERT_TRUE(planner.add(request(2, 3, 12)).ok());
  bool resumed = false;
  int ended = 0;
  TokenId token = 20;
  while (const auto plan = planner.plan()) {
    if (planner.stats().preemptions > 0 && !plan->admitted.empty() && !resumed) {
      resumed = true;
      EXPECT_EQ(plan->admitted[0].prompt_tokens, 3);
      EXPECT_GT(plan->work.back().tokens.size(), 3u) << "generated tokens are processed again";
    }
    for (const auto& event : planner.apply(result_of(*plan, token++))) ended += event.finished ? 1 : 0;
    ASSERT_EQ(planner.check_invariants(), "");
  }
  EXPECT_TRUE(resumed);
  EXPECT_EQ(ended, 2);
}

TEST(Planner, CancelFreesASlotForTheNextPlan) {
  PlannerOptions options = small();
  options.max_sequences = 1;
  Planner planner(options);
  ASSERT_TRUE(planner.add(request(1, 3, 5)).ok());
  ASSERT_TRUE(planner.add(request(2, 3, 5)).ok());
  const auto first = planner.plan();
  EXPECT_TRUE(planner.cancel(1));
  EXPECT_FALSE(planner.cancel(1));
  const auto second = planner.plan();
  ASSERT_TRUE(second);
  EXPECT_THAT(second->released, ElementsAre(0));
  EXPECT_EQ(second->admitted.size(), 1u);
  EXPECT_THAT(planner.apply(result_of(*first, 9)), IsEmpty());
  EXPECT_EQ(planner.apply(result_of(*second, 9))[0].id, 2u);
}

TEST(Planner, AdmitsInOrderOfArrival) {
  PlannerOptions options = small();
  options.num_blocks = 8;
  Planner planner(options);
  ASSERT_TRUE(planner.add(request(1, 4, 4)).ok());
  ASSERT_TRUE(planner.add(request(2, 32, 0)).ok());  // needs the whole pool
  ASSERT_TRUE(planner.add(request(3, 1, 1)).ok());   // would fit, but is younger
  std::vector<SequenceId> order;
  while (const auto plan = planner.plan()) {
    for (const auto& event : planner.apply(result_of(*plan, 9))) {
      if (event.finished) order.push_back(event.id);
    }
  }
  EXPECT_THAT(order, ElementsAre(1, 2, 3));
}

// Plans and applies until nothing is left; returns the rows that were processed.
int64_t run_to_end(Planner& planner, FakeEngine& engine) {
  int64_t rows = 0;
  while (const auto plan = planner.plan()) {
    rows += plan->num_tokens();
    planner.apply(engine.run(*plan));
    EXPECT_EQ(engine.fault(), "");
    EXPECT_EQ(planner.check_invariants(), "");
  }
  return rows;
}

SequenceRequest prompt_of(SequenceId id, int32_t tokens, TokenId last = 9, const std::string& salt = "") {
  SequenceRequest request;
  request.id = id;
  for (int32_t i = 1; i < tokens; ++i) request.tokens.push_back(3 + i % 11);
  request.tokens.push_back(last);
  request.prompt_tokens = tokens;
  request.max_new_tokens = 1;
  request.cache_salt = salt;
  return request;
}

// Blocks of four tokens, which are kept for prompts that begin alike.
PlannerOptions keeping_blocks(int32_t num_blocks, int32_t max_sequences, int32_t max_context) {
  PlannerOptions options;
  options.num_blocks = num_blocks;
  options.block_tokens = 4;
  options.max_sequences = max_sequences;
  options.max_step_tokens = 64;
  options.max_context = max_context;
  options.prefix_cache = true;
  return options;
}

TEST(PrefixCache, WholeBlocksOfTheSameBeginningAreNotProcessedAgain) {
  const PlannerOptions options = keeping_blocks(20, 2, 64);
  Planner planner(options);
  FakeEngine engine(options);
  ASSERT_TRUE(planner.add(prompt_of(1, 22)).ok());
  EXPECT_EQ(run_to_end(planner, engine), 22);
  ASSERT_TRUE(planner.add(prompt_of(2, 22, 8)).ok());  // its last token differs
  EXPECT_EQ(run_to_end(planner, engine), 2);
  ASSERT_TRUE(planner.add(prompt_of(3, 20)).ok());  // one row is needed, so the last whole block is not shared
  EXPECT_EQ(run_to_end(planner, engine), 4);
  ASSERT_TRUE(planner.add(prompt_of(4, 22, 9, "tenant")).ok());
  EXPECT_EQ(run_to_end(planner, engine), 22);
  SequenceRequest scored = prompt_of(5, 22);
  scored.prompt_logprobs = true;
  ASSERT_TRUE(planner.add(scored).ok());
  EXPECT_EQ(run_to_end(planner, engine), 22);
  EXPECT_EQ(planner.stats().shared_tokens, 36u);
  EXPECT_EQ(planner.stats().free_blocks, 20);
}

TEST(PrefixCache, UnusedBlocksGiveWayTheLongestUnusedFirst) {
  const PlannerOptions options = keeping_blocks(12, 1, 44);
  Planner planner(options);
  FakeEngine engine(options);
  ASSERT_TRUE(planner.add(prompt_of(1, 20, 9, "a")).ok());
  EXPECT_EQ(run_to_end(planner, engine), 20);
  ASSERT_TRUE(planner.add(prompt_of(2, 20, 9, "b")).ok());
  EXPECT_EQ(run_to_end(planner, engine), 20);
  ASSERT_TRUE(planner.add(prompt_of(3, 20, 9, "c")).ok());  // takes the two free blocks and three of "a"
  EXPECT_EQ(run_to_end(planner, engine), 20);
  ASSERT_TRUE(planner.add(prompt_of(4, 20, 9, "b")).ok());
  EXPECT_EQ(run_to_end(planner, engine), 4);
  ASSERT_TRUE(planner.add(prompt_of(5, 20, 9, "a")).ok());
  EXPECT_GT(run_to_end(planner, engine), 4);
}

TEST(PrefixCache, WithoutItNothingIsShared) {
  PlannerOptions options = keeping_blocks(20, 2, 64);
  options.prefix_cache = false;
  Planner planner(options);
  FakeEngine engine(options);
  for (const SequenceId id : {1, 2}) {
    ASSERT_TRUE(planner.add(prompt_of(id, 22)).ok());
    EXPECT_EQ(run_to_end(planner, engine), 22);
  }
}

// A prompt of two ids whose output ends with any of these.
SequenceRequest stopped_by(std::vector<TokenId> stop_ids) {
  SequenceRequest request;
  request.id = 1;
  request.tokens = {2, 5};
  request.prompt_tokens = 2;
  request.max_new_tokens = 10;
  request.rules.stop_ids = std::move(stop_ids);
  return request;
}

// The sampler sees them as stop ids, which are hidden as long as the text must go on.
TEST(Planner, AnyOfTheModelsEndIdsEndsTheText) {
  PlannerOptions options{.num_blocks = 8, .max_sequences = 2, .max_step_tokens = 16, .max_context = 64};
  options.more_eos = {7, 30};
  const auto finish_with = [&](TokenId token, bool ignores) {
    Planner planner(options);
    SequenceRequest request = stopped_by({9, 30});
    request.sampling.ignore_eos = ignores;
    EXPECT_TRUE(planner.add(request).ok());
    const auto plan = planner.plan();
    EXPECT_TRUE(plan);
    sampling::TokenRules rules = request.rules;
    if (!ignores) rules.stop_ids = {9, 30, 7};
    EXPECT_EQ(plan->admitted.at(0).rules, pack(rules));
    StepResult result;
    result.step = plan->step;
    result.sampled = {{plan->work[0].slot, token, -0.5f, true, {}}};
    return planner.apply(result).at(0).finished;
  };
  EXPECT_EQ(finish_with(7, false), sampling::FinishReason::kEndOfText);
  EXPECT_EQ(finish_with(30, false), sampling::FinishReason::kEndOfText);
  EXPECT_EQ(finish_with(9, false), sampling::FinishReason::kStop);
  EXPECT_EQ(finish_with(30, true), sampling::FinishReason::kStop) << "the request's own";
  EXPECT_EQ(finish_with(7, true), std::nullopt);
}

TEST(Planner, AStopIdEndsTheSequence) {
  Planner planner(PlannerOptions{.num_blocks = 8, .max_sequences = 2, .max_step_tokens = 16, .max_context = 64});
  const SequenceRequest request = stopped_by({30, 31});
  ASSERT_TRUE(planner.add(request).ok());
  const auto plan = planner.plan();
  ASSERT_TRUE(plan);
  ASSERT_EQ(plan->admitted.size(), 1u);
  EXPECT_EQ(plan->admitted[0].rules, pack(request.rules));
  StepResult result;
  result.step = plan->step;
  result.sampled = {{plan->work[0].slot, 31, -0.5f, true, {{7, -0.25f}}}};
  const auto events = planner.apply(result);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].token, 31);
  EXPECT_EQ(events[0].finished, sampling::FinishReason::kStop);
  EXPECT_EQ(events[0].best, (std::vector<sampling::TokenLogprob>{{7, -0.25f}}));
  EXPECT_FALSE(planner.has_work());
}

}  // namespace planner_test
}  // namespace optserve::batching

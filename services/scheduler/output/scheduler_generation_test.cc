// What a job asks of its generation, on its way through the scheduler: rules of ids, stop ids, bad words,
// log-probabilities, scoring.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "scheduler/scheduler_service.h"
#include "scheduler/scheduler_test_world.h"

namespace optserve::scheduler::testing {
namespace scheduler_generation_test {

using protocol::JobState;
using sampling::FinishReason;
using ::testing::HasSubstr;

constexpr uint8_t kStopped = static_cast<uint8_t>(sampling::FinishReason::kStop);

protocol::Tokens token(const protocol::DispatchItem& item, uint32_t position, TokenId id, uint8_t finished = 0) {
  return {1, {item.lease}, {position}, {id}, {finished}};
}

TEST(Generation, AStopIdEndsTheJobAndIsShownOnlyWhenAskedFor) {
  for (const bool include : {false, true}) {
    World world;
    world.add_services();
    auto spec = job_spec("a");
    spec.rules.stop_ids = {kFirstByteId + 'z'};
    spec.include_stop = include;
    const auto item = world.submit_and_dispatch(spec);
    EXPECT_EQ(item.rules, spec.rules);
    world.send(world.worker, token(item, 0, kFirstByteId + 'x'));
    world.send(world.worker, token(item, 1, kFirstByteId + 'z', kStopped));
    world.tokenize();
    const auto result = world.only<protocol::JobFinished>(world.client).result;
    EXPECT_EQ(result.finish_reason, sampling::FinishReason::kStop);
    EXPECT_EQ(result.text, include ? "xz" : "x");
    EXPECT_EQ(result.ids, (std::vector<TokenId>{kFirstByteId + 'x', kFirstByteId + 'z'}));
    EXPECT_EQ(world.streamed_text(), result.text);
  }
}

TEST(Generation, AStopStringIsPartOfTheTextWhenAskedFor) {
  World world;
  world.add_services();
  auto spec = job_spec("a", "once", 12);
  spec.stop = {"cd"};
  spec.include_stop = true;
  const auto item = world.submit_and_dispatch(spec);
  for (uint32_t p = 0; p < 6; ++p) world.send(world.worker, token(item, p, TokenId(kFirstByteId + 'a' + int(p))));
  const auto question = world.only<protocol::Decode>(world.tokenizer);
  EXPECT_TRUE(question.items[0].include_stop);
}

TEST(Generation, LogprobsOfDrawnAndBestTokensComeWithTheResult) {
  World world;
  world.add_services();
  auto spec = job_spec("a", "once", 2);
  spec.sampling.logprobs = 1;
  const auto item = world.submit_and_dispatch(spec);
  EXPECT_EQ(item.sampling.logprobs, 1);
  auto first = token(item, 0, kFirstByteId + 'x'), second = token(item, 1, kFirstByteId + 'y', 2);
  first.logprobs = {-0.5f}, first.best = {{{7, -0.25f}}};
  second.logprobs = {-1.5f}, second.best = {{{8, -0.125f}}};
  world.send(world.worker, first);
  world.send(world.worker, second);
  world.tokenize();
  const auto result = world.only<protocol::JobFinished>(world.client).result;
  EXPECT_EQ(result.logprobs, (std::vector<float>{-0.5f, -1.5f}));
  ASSERT_EQ(result.best.size(), 2u);
  EXPECT_EQ(result.best[1], (std::vector<sampling::TokenLogprob>{{8, -0.125f}}));
}

TEST(Generation, ATokenWithoutTheLogprobsThatWereAskedForLosesItsLease) {
  World world;
  world.add_services();
  auto spec = job_spec("a");
  spec.sampling.logprobs = 0;
  const auto item = world.submit_and_dispatch(spec);
  world.send(world.worker, token(item, 0, kFirstByteId + 'x'));
  EXPECT_EQ(world.take<protocol::Revoke>(world.worker).size(), 1u);
  auto unequal = token(item, 0, kFirstByteId + 'x');
  unequal.logprobs = {-1, -2};
  world.send(world.worker, unequal);
  EXPECT_THAT(world.only<protocol::Refused>(world.worker).message, HasSubstr("equal lengths"));
}

TEST(Generation, AStopStringCutsTheLogprobsToo) {
  World world;
  world.add_services();
  auto spec = job_spec("a", "once", 12);
  spec.stop = {"c"};
  spec.sampling.logprobs = 0;
  const auto item = world.submit_and_dispatch(spec);
  for (uint32_t p = 0; p < 6; ++p) {
    auto one = token(item, p, TokenId(kFirstByteId + 'a' + int(p)));
    one.logprobs = {-float(p)}, one.best = {{}};
    world.send(world.worker, one);
  }
  world.tokenize();
  const auto result = world.only<protocol::JobFinished>(world.client).result;
  EXPECT_EQ(result.ids.size(), 3u);
  EXPECT_EQ(result.logprobs, (std::vector<float>{0, -1, -2}));
  EXPECT_EQ(result.best.size(), 3u);
}

TEST(Generation, BadWordsAreEncodedAndTravelAsIds) {
  for (const bool ids_given : {false, true}) {
    World world;
    world.add_services();
    auto spec = job_spec("a", ids_given ? "" : "once");
    if (ids_given) spec.prompt_ids = {2, 5, 6};
    spec.bad_words = {"ab"};
    spec.rules.bad_words = {{9}};
    world.submit(spec);
    const auto question = world.only<protocol::Encode>(world.tokenizer);
    EXPECT_EQ(question.items[0].bad_words, spec.bad_words);
    auto answer = encode_bytes(question);
    answer.items[0].bad_words = {{20, 21}, {22}};
    world.send(world.tokenizer, answer);
    const auto item = world.dispatched(world.worker);
    EXPECT_EQ(item.rules.bad_words, (std::vector<std::vector<TokenId>>{{9}, {20, 21}, {22}}));
    EXPECT_EQ(item.prompt_tokens, ids_given ? 3 : 5);
    if (ids_given) {
      EXPECT_EQ(item.tokens, spec.prompt_ids);
    }
  }
}

TEST(Generation, RulesOutsideTheVocabularyAreRefused) {
  World world;
  world.add_services();
  auto spec = job_spec("a");
  spec.rules.logit_bias = {{100'000'000, 1}};
  const auto outcome = world.submit_refused(spec);
  EXPECT_EQ(outcome.error, ErrorCode::kBadRequest);
  EXPECT_THAT(outcome.message, HasSubstr("logit_bias"));
}

TEST(Generation, APromptIsScoredWithoutAToken) {
  World world;
  world.add_services();
  auto spec = job_spec("a", "", 0);
  spec.prompt_ids = {2, 5, 6};
  spec.prompt_logprobs = true;
  const auto item = world.submit_and_dispatch(spec);
  EXPECT_EQ(item.max_new_tokens, 0);
  EXPECT_TRUE(item.prompt_logprobs);
  world.send(world.worker, protocol::PromptLogprobs{1, item.lease, 1, {-1}});
  EXPECT_TRUE(world.take<protocol::JobFinished>(world.client).empty());
  world.send(world.worker, protocol::PromptLogprobs{1, item.lease, 2, {-2}});
  world.tokenize();
  const auto result = world.only<protocol::JobFinished>(world.client).result;
  EXPECT_EQ(result.state, JobState::kSucceeded);
  EXPECT_EQ(result.finish_reason, sampling::FinishReason::kLength);
  EXPECT_EQ(result.prompt_logprobs, (std::vector<float>{-1, -2}));
  EXPECT_TRUE(result.ids.empty());
  EXPECT_EQ(world.service->jobs().size(), 0u);

  spec.key = "b";
  spec.prompt_ids = {2};  // nothing to score
  world.submit(spec);
  world.tokenize();
  EXPECT_EQ(world.only<protocol::JobFinished>(world.client).result.state, JobState::kSucceeded);

  spec.key = "c";
  spec.prompt_logprobs = false;
  EXPECT_THAT(world.submit_refused(spec).message, HasSubstr("max_new_tokens"));
}

}  // namespace scheduler_generation_test
}  // namespace optserve::scheduler::testing

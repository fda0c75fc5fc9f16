// What happens when tokenizers are slow, silent, wrong or not there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "scheduler/scheduler_test_world.h"

namespace optserve::scheduler::testing {
namespace scheduler_tokenizers_test {

using protocol::JobState;
using ::testing::HasSubstr;

TEST(SchedulerTokenizers, IdsOutsideTheVocabularyAreNoAnswer) {
  World world;
  world.add_services();
  const World::Peer other{1, "tokenizer2"};
  world.add_tokenizer(other, 3);
  world.submit(job_spec("a"));
  const auto questions = [&] {
    std::vector<std::pair<World::Peer, protocol::Encode>> asked;
    for (const auto& peer : {world.tokenizer, other}) {
      for (auto& question : world.take<protocol::Encode>(peer)) asked.emplace_back(peer, std::move(question));
    }
    return asked;
  };
  for (const TokenId id : {-1, 259, 1 << 30}) {  // the vocabulary has 259 ids
    const auto asked = questions();
    ASSERT_EQ(asked.size(), 1u) << id;
    auto answer = encode_bytes(asked[0].second);
    answer.items[0].ids[0] = id;
    world.send(asked[0].first, answer);
    EXPECT_TRUE(world.take<protocol::Dispatch>(world.worker).empty()) << id;
  }
  const auto asked = questions();
  ASSERT_EQ(asked.size(), 1u);
  world.send(asked[0].first, encode_bytes(asked[0].second));
  world.dispatched(world.worker);
}

TEST(SchedulerTokenizers, AStopStringThatEndsAtNoneOfTheIdsIsAskedAgain) {
  for (const uint32_t impossible : {0u, 8u}) {
    World world;
    world.add_services();
    auto spec = job_spec("a", "once", 12);
    spec.stop = {"cd"};
    const auto item = world.submit_and_dispatch(spec);
    for (uint32_t p = 0; p < 8; ++p) {
      world.send(world.worker, protocol::Tokens{1, {item.lease}, {p}, {TokenId(kFirstByteId + 'a' + int(p))}, {0}});
    }
    world.send(world.tokenizer, decode_bytes(world.only<protocol::Decode>(world.tokenizer)));
    const auto question = world.only<protocol::Decode>(world.tokenizer);
    ASSERT_EQ(question.items.at(0).ids.size(), 7u);
    auto answer = decode_bytes(question);
    answer.items[0].stop_ids = impossible;
    world.send(world.tokenizer, answer);
    EXPECT_TRUE(world.take<protocol::JobFinished>(world.client).empty()) << impossible;
    const auto again = world.only<protocol::Decode>(world.tokenizer);
    EXPECT_EQ(again.items.at(0).ids, question.items[0].ids);
    world.send(world.tokenizer, decode_bytes(again));
    EXPECT_EQ(world.only<protocol::JobFinished>(world.client).result.ids.size(), 4u);
  }
}

TEST(SchedulerTokenizers, APromptIsWhatItsTokenizerSays) {
  World world;
  world.add_services();
  world.submit(job_spec("a"));
  auto answer = encode_bytes(world.only<protocol::Encode>(world.tokenizer));
  auto empty = answer;
  empty.items[0].ids.clear();
  world.send(world.tokenizer, empty);  // a prompt has at least the leading id: asked again
  EXPECT_TRUE(world.take<protocol::Dispatch>(world.worker).empty());
  answer.items[0].ticket = world.only<protocol::Encode>(world.tokenizer).items.at(0).ticket;
  answer.items[0].ids[0] = 5;  // another model's leading id
  world.send(world.tokenizer, answer);
  const auto item = world.dispatched(world.worker);
  EXPECT_EQ(item.tokens, answer.items[0].ids);
  EXPECT_EQ(item.prompt_tokens, static_cast<int32_t>(answer.items[0].ids.size()));
}

TEST(SchedulerTokenizers, AnotherVocabularyUnderTheSameNameIsRefused) {
  World world;
  world.add_tokenizer(world.tokenizer, 1, "digest-a");
  world.sent.clear();
  world.send(world.worker,
             protocol::Register{
                 instance(2), protocol::ServiceKind::kWorker, "w", "b", {model_info("opt", "digest-b")}, 4, 0, 1});
  const auto refused = world.only<protocol::Refused>(world.worker);
  EXPECT_THAT(refused.message, HasSubstr("digest-b"));
  EXPECT_THAT(refused.message, HasSubstr("digest-a"));
  EXPECT_EQ(world.service->services().size(), 1u);
}

TEST(SchedulerTokenizers, AHungTokenizersQuestionsGoToAnother) {
  World world;
  world.add_services();
  const World::Peer second{1, "tokenizer2"};
  world.submit(job_spec("a"));
  const auto lost = world.only<protocol::Encode>(world.tokenizer);
  world.add_tokenizer(second, 4);
  world.heartbeat(world.tokenizer, 1);
  world.advance(milliseconds(2'100));
  const auto asked = world.only<protocol::Encode>(second);
  EXPECT_NE(asked.items[0].ticket, lost.items[0].ticket);
  world.send(world.tokenizer, encode_bytes(lost));  // too late
  EXPECT_TRUE(world.take<protocol::Dispatch>(world.worker).empty());
  world.send(second, encode_bytes(asked));
  world.send(second, encode_bytes(asked));  // twice
  world.dispatched(world.worker);
}

TEST(SchedulerTokenizers, ATokenizerThatNeverAnswersEndsTheJobAfterItsTries) {
  World world;
  world.add_services();
  world.submit(job_spec("a"));
  for (int i = 0; i < 65; ++i) {  // 2, 4, 8, 16 and 32 s of patience
    world.advance(seconds(1));
    world.heartbeat(world.tokenizer, 1);
    world.heartbeat(world.worker, 2);
  }
  EXPECT_EQ(world.take<protocol::Encode>(world.tokenizer).size(), 5u);
  const auto result = world.only<protocol::JobFinished>(world.client).result;
  EXPECT_EQ(result.state, JobState::kFailed);
  EXPECT_THAT(result.message, HasSubstr("no tokenizer answered 5 times"));
}

TEST(SchedulerTokenizers, ASlowTokenizerDelaysAJobAndDoesNotFailIt) {
  World world;
  world.add_services();
  world.submit(job_spec("a"));
  std::multimap<int, protocol::Encode> asked;  // by second
  for (int second = 0; second < 30; ++second) {
    for (const auto& question : world.take<protocol::Encode>(world.tokenizer)) asked.emplace(second, question);
    const auto due = asked.equal_range(second - 10);
    for (auto it = due.first; it != due.second; ++it) world.send(world.tokenizer, encode_bytes(it->second));
    world.advance(seconds(1));
    world.heartbeat(world.tokenizer, 1);
    world.heartbeat(world.worker, 2);
  }
  EXPECT_TRUE(world.take<protocol::JobFinished>(world.client).empty());
  world.dispatched(world.worker);
}

TEST(SchedulerTokenizers, QuestionsWaitForATokenizerToCome) {
  World world;
  world.add_services();
  const auto item = world.submit_and_dispatch(job_spec("a", "once", 4));
  world.generate(world.worker, item, 0, 1);
  world.undeliverable(world.tokenizer, world.only<protocol::Decode>(world.tokenizer), false);
  world.generate(world.worker, item, 1, 3);
  for (int i = 0; i < 20; ++i) world.advance(seconds(1));
  EXPECT_EQ(world.service->jobs().count(Stage::kDecoding), 1u);
  world.add_tokenizer(world.tokenizer, 5);
  world.tokenize();
  EXPECT_EQ(world.only<protocol::JobFinished>(world.client).result.state, JobState::kSucceeded);
}

TEST(ModelsWithoutTokenizer, ServeIds) {
  World world;
  world.add_worker_of_ids(world.worker, 2);
  auto spec = ids_spec("a", "", 3);
  world.submit(spec);
  world.generate(world.worker, world.dispatched(world.worker), 0, 3);
  const auto result = world.only<protocol::JobFinished>(world.client).result;
  EXPECT_EQ(result.state, protocol::JobState::kSucceeded);
  EXPECT_EQ(result.ids.size(), 3u);
  EXPECT_EQ(result.text, "");
}

TEST(ModelsWithoutTokenizer, RefuseTextWhenItIsSubmitted) {
  World world;
  world.add_worker_of_ids(world.worker, 2);
  auto stop = ids_spec("b"), words = ids_spec("c");
  stop.stop = {"end"};
  words.bad_words = {"bad"};
  for (const auto& spec : {job_spec("a", "some text", 3), stop, words}) {
    const auto outcome = world.submit_refused(spec);
    EXPECT_FALSE(outcome.job);
    EXPECT_THAT(outcome.message, HasSubstr("was converted without a tokenizer: it takes prompt_ids"));
  }
}

// The job was accepted before any service had said what the model can do.
TEST(ModelsWithoutTokenizer, EndTextThatWasAcceptedBefore) {
  SchedulerOptions options;
  options.models = {"opt"};
  World world(options);
  auto later = job_spec("a", "some text", 3);
  later.delay_ms = 1000;
  world.submit(later);
  world.add_worker_of_ids(world.worker, 2);
  world.advance(milliseconds(1100));
  const auto result = world.only<protocol::JobFinished>(world.client).result;
  EXPECT_EQ(result.state, protocol::JobState::kFailed);
  EXPECT_THAT(result.message, HasSubstr("without a tokenizer"));
}

}  // namespace scheduler_tokenizers_test
}  // namespace optserve::scheduler::testing

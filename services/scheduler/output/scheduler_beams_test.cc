// Beam searches on their way through the scheduler: hypotheses before the last token, each with its text.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "scheduler/scheduler_service.h"
#include "scheduler/scheduler_test_world.h"

namespace optserve::scheduler::testing {
namespace scheduler_beams_test {

using protocol::Hypotheses;
using protocol::Hypothesis;
using protocol::JobState;
using sampling::FinishReason;
using ::testing::HasSubstr;

std::vector<TokenId> ids_of(const std::string& text, bool ended = false) {
  std::vector<TokenId> ids;
  for (const char c : text) ids.push_back(kFirstByteId + c);
  if (ended) ids.push_back(kEndOfText);
  return ids;
}

protocol::JobSpec beam_spec(int32_t width = 2) {
  auto spec = job_spec("a", "once", 3);
  spec.sampling.beam_width = width;
  return spec;
}

Hypothesis hypothesis(const std::string& text, float score, bool ended = false) {
  return {ids_of(text, ended), score * 2, score,
          ended ? sampling::FinishReason::kEndOfText : sampling::FinishReason::kLength};
}

class Beams : public ::testing::Test {
 protected:
  Beams() { world.add_services(); }

  void send_hypotheses(const protocol::DispatchItem& item, std::vector<Hypothesis> all) {
    world.send(world.worker, Hypotheses{1, item.lease, std::move(all)});
  }
  void send_tokens(const protocol::DispatchItem& item, const std::string& text, sampling::FinishReason reason) {
    const std::vector<TokenId> ids = ids_of(text, reason == sampling::FinishReason::kEndOfText);
    for (size_t i = 0; i < ids.size(); ++i) {
      const auto finished = static_cast<uint8_t>(i + 1 == ids.size() ? reason : sampling::FinishReason::kNone);
      world.send(world.worker, protocol::Tokens{1, {item.lease}, {static_cast<uint32_t>(i)}, {ids[i]}, {finished}});
    }
  }
  bool is_revoked() { return world.take<protocol::Revoke>(world.worker).size() == 1; }

  World world;
};

TEST_F(Beams, TheResultHoldsEveryHypothesisWithItsText) {
  const auto item = world.submit_and_dispatch(beam_spec(3));
  EXPECT_EQ(item.sampling.beam_width, 3);
  send_hypotheses(item, {hypothesis("xy", -1, true), hypothesis("xyz", -2), hypothesis("b", -3, true)});
  send_tokens(item, "xy", sampling::FinishReason::kEndOfText);
  world.tokenize();
  const auto result = world.only<protocol::JobFinished>(world.client).result;
  EXPECT_EQ(result.state, JobState::kSucceeded);
  EXPECT_EQ(result.text, "xy");
  ASSERT_EQ(result.hypotheses.size(), 3u);
  EXPECT_EQ(result.hypotheses[0].text, "xy");
  EXPECT_EQ(result.hypotheses[0].ids, result.ids);
  EXPECT_EQ(result.hypotheses[1].text, "xyz");
  EXPECT_EQ(result.hypotheses[1].finish_reason, sampling::FinishReason::kLength);
  EXPECT_EQ(result.hypotheses[2].text, "b");
  EXPECT_EQ(result.hypotheses[2].ids, ids_of("b", true));
  EXPECT_EQ(world.streamed_text(), "xy");
}

TEST_F(Beams, AStopStringCutsHypotheses) {
  auto spec = beam_spec(3);
  spec.stop = {"y"};
  const auto item = world.submit_and_dispatch(spec);
  send_hypotheses(item, {hypothesis("xyz", -1), hypothesis("abc", -2), hypothesis("aby", -3)});
  send_tokens(item, "xyz", sampling::FinishReason::kLength);
  world.tokenize();
  const auto result = world.only<protocol::JobFinished>(world.client).result;
  EXPECT_EQ(result.finish_reason, sampling::FinishReason::kStop);
  EXPECT_EQ(result.text, "x");
  ASSERT_EQ(result.hypotheses.size(), 3u);
  EXPECT_EQ(result.hypotheses[0].text, "x");
  EXPECT_EQ(result.hypotheses[0].ids, result.ids);
  EXPECT_EQ(result.hypotheses[1].text, "abc");
  EXPECT_EQ(result.hypotheses[2].text, "ab");
}

TEST_F(Beams, ALastTokenBeforeTheHypothesesLosesTheLease) {
  const auto item = world.submit_and_dispatch(beam_spec());
  send_tokens(item, "xyz", sampling::FinishReason::kLength);
  EXPECT_TRUE(is_revoked());
}

TEST_F(Beams, TokensThatAreNotTheBestHypothesisLoseTheLease) {
  for (const std::string text : {"xa", "xyz", "x"}) {
    World fresh_world;
    fresh_world.add_services();
    const auto item = fresh_world.submit_and_dispatch(beam_spec());
    fresh_world.send(fresh_world.worker, Hypotheses{1, item.lease, {hypothesis("xy", -1)}});
    for (size_t i = 0; i < text.size(); ++i) {
      const auto finished =
          static_cast<uint8_t>(i + 1 == text.size() ? sampling::FinishReason::kStop : sampling::FinishReason::kNone);
      fresh_world.send(
          fresh_world.worker,
          protocol::Tokens{
              1, {item.lease}, {static_cast<uint32_t>(i)}, {static_cast<TokenId>(kFirstByteId + text[i])}, {finished}});
    }
    EXPECT_GE(fresh_world.take<protocol::Revoke>(fresh_world.worker).size(), 1u) << text;
  }
}

TEST_F(Beams, HypothesesThatDoNotFitLoseTheLease) {
  const std::vector<std::vector<Hypothesis>> bad = {
      {},                                                               // none
      {hypothesis("x", -1), hypothesis("y", -2), hypothesis("z", -3)},  // more than beams
      {hypothesis("wxyz", -1)},                                         // longer than asked for
      {hypothesis("", -1)},                                             // without an id
      {{{100'000'000}, -1, -1, sampling::FinishReason::kLength}},       // an id of no vocabulary
  };
  for (size_t i = 0; i < bad.size(); ++i) {
    World fresh_world;
    fresh_world.add_services();
    const auto item = fresh_world.submit_and_dispatch(beam_spec());
    fresh_world.send(fresh_world.worker, Hypotheses{1, item.lease, bad[i]});
    const bool refused = !fresh_world.take<protocol::Refused>(fresh_world.worker).empty() ||
                         !fresh_world.take<protocol::Revoke>(fresh_world.worker).empty();
    EXPECT_TRUE(refused) << "case " << i;
  }
}

TEST_F(Beams, AJobWithoutBeamsTakesNoHypotheses) {
  const auto item = world.submit_and_dispatch(job_spec("a", "once", 3));
  send_hypotheses(item, {hypothesis("xyz", -1)});
  EXPECT_TRUE(is_revoked());
}

// Only the second worker's search counts; nothing is left of the first one's.
TEST_F(Beams, ALostWorkerStartsTheSearchAgain) {
  const auto item = world.submit_and_dispatch(beam_spec());
  send_hypotheses(item, {hypothesis("xyz", -1), hypothesis("xya", -2)});
  send_tokens(item, "x", sampling::FinishReason::kNone);
  world.send(world.worker, protocol::LeaseFailed{1, item.lease, ErrorCode::kUnavailable, "gone", true});
  world.advance(seconds(3));
  const auto again = world.dispatched(world.worker);
  EXPECT_EQ(again.tokens, item.tokens);
  send_hypotheses(again, {hypothesis("b", -1, true)});
  send_tokens(again, "b", sampling::FinishReason::kEndOfText);
  world.tokenize();
  const auto result = world.only<protocol::JobFinished>(world.client).result;
  EXPECT_EQ(result.text, "b");
  EXPECT_EQ(result.hypotheses.size(), 1u);
}

TEST_F(Beams, WhatABeamSearchCannotHaveIsRefused) {
  auto drawn = beam_spec();
  drawn.sampling.top_k = 5;
  EXPECT_THAT(world.submit_refused(drawn).message, HasSubstr("top_k is 5, expected 0 in a beam search"));
  auto scored = beam_spec();
  scored.prompt_logprobs = true;
  EXPECT_THAT(world.submit_refused(scored).message, HasSubstr("prompt_logprobs"));
}

}  // namespace scheduler_beams_test
}  // namespace optserve::scheduler::testing

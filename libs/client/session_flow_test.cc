// How much a session sends and allows to be sent: credits, the retry budget, and what the scheduler says about
// retrying.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/session_test_rig.h"

namespace optserve::client {
namespace session_flow_test {

using protocol::Credit;

Rig::Answer busy_until(Rig& rig, Instant until, int64_t retry_after_ms) {
  return [&rig, until, retry_after_ms](const Message& message) {
    const auto* submit = std::get_if<Submit>(&message);
    if (submit == nullptr) return;
    protocol::SubmitOutcome outcome;
    if (rig.clock.now() < until) {
      outcome.error = ErrorCode::kStorageFull;
      outcome.retry_after_ms = retry_after_ms;
    } else {
      outcome.job = Id128::random();
    }
    rig.receive(SubmitReply{submit->request, {outcome}});
  };
}

TEST(Credits, ComeFirstOnAConnectionAndWithEachPing) {
  Rig rig;
  rig.session.call(protocol::GetStatus{}, rig.clock.now() + seconds(60), rig.turn(), [](auto, const Turn&) {});
  rig.pass(milliseconds(500));
  ASSERT_TRUE(std::holds_alternative<Ping>(rig.sent.at(0)));
  ASSERT_TRUE(std::holds_alternative<Credit>(rig.sent.at(1)));
  EXPECT_EQ(std::get<Credit>(rig.sent[1]), (Credit{0, limits::kStreamWindowMax}));
  rig.sent.clear();
  rig.pass(seconds(5));
  EXPECT_EQ(rig.all<Credit>().size(), rig.all<Ping>().size());
}

TEST(Credits, AreSentWhenHalfOfTheWindowWasUsedAndCountOverConnections) {
  SessionOptions options = Rig::with_seed(1);
  options.window_bytes = 1'000;
  Rig rig(options);
  Seen seen;
  const JobId job = Id128::random();
  rig.accept_one(job, seen);
  uint64_t consumed = 0;
  for (int i = 0; i < 100; ++i) {
    const JobEvents piece = event(job, seen.text.size(), "0123456789");
    consumed += protocol::stream_cost(piece.events[0]);
    rig.receive(piece);
  }
  const auto credits = rig.all<Credit>();
  EXPECT_GE(credits.size(), consumed / 600);
  EXPECT_LE(credits.size(), consumed / 500);
  uint64_t last = 0;
  for (const Credit& credit : credits) {
    EXPECT_EQ(credit.window, 1'000u);
    EXPECT_LT(credit.consumed - last, 600u);
    last = credit.consumed;
  }
  rig.down = true;
  rig.pass(seconds(2));
  rig.down = false;
  rig.sent.clear();
  rig.pass(seconds(2));
  EXPECT_EQ(rig.all<Credit>().at(0).consumed, consumed);
}

TEST(Credits, ACallbackThatHasNotReturnedWithholdsThem) {
  SessionOptions options = Rig::with_seed(1);
  options.window_bytes = 100;
  Rig rig(options);
  const JobId job = Id128::random();
  Seen seen;
  rig.accept_one(job, seen);
  size_t during = 0;
  JobStream stream;
  stream.on_text = [&](std::string_view, const JobEvent&) {
    for (const auto& item : rig.out.take()) during += std::holds_alternative<Credit>(item.message);
  };
  rig.session.follow(job, 0, stream, rig.turn());
  rig.receive(event(job, 0, std::string(500, 'x')));
  EXPECT_EQ(during, 0u);
  EXPECT_EQ(rig.all<Credit>().size(), 1u);
}

TEST(RetryAfter, IsWaitedForWithJitterAndNotOutwaited) {
  for (uint64_t seed = 1; seed < 20; ++seed) {
    Rig rig(seed);
    rig.pass(milliseconds(200));
    rig.answer = busy_until(rig, rig.clock.now() + milliseconds(100), 3'000);
    rig.submit({Rig::good_job()});
    rig.pass(milliseconds(2'900));
    EXPECT_EQ(rig.all<Submit>().size(), 1u);
    rig.pass(milliseconds(2'000));
    EXPECT_EQ(rig.all<Submit>().size(), 2u);
    ASSERT_TRUE(rig.outcomes && rig.outcomes->ok());
    EXPECT_TRUE(rig.outcomes->value().at(0).job);
  }
}

TEST(RetryAfter, BeyondTheDeadlineIsTheAnswerAtOnce) {
  Rig rig;
  rig.pass(milliseconds(200));
  rig.answer = busy_until(rig, rig.clock.now() + seconds(100), INT64_MAX);
  rig.submit({Rig::good_job()});
  ASSERT_TRUE(rig.outcomes && rig.outcomes->ok());
  EXPECT_EQ(rig.outcomes->value().at(0).error, ErrorCode::kStorageFull);
  EXPECT_EQ(rig.outcomes->value().at(0).retry_after_ms, INT64_MAX);
}

TEST(Retries, AreAFewOfManyWhenTheSchedulerAnswersNothingButPings) {
  Rig rig;
  rig.pass(milliseconds(200));
  constexpr size_t kCalls = 1'000;
  for (size_t i = 0; i < kCalls; ++i) {
    rig.session.call(protocol::GetStatus{}, rig.clock.now() + seconds(20), rig.turn(), [](auto, const Turn&) {});
  }
  rig.pass(seconds(19));
  const size_t sent = rig.all<protocol::GetStatus>().size();
  EXPECT_GT(sent, kCalls);
  EXPECT_LE(sent, kCalls + 10 + 4);
}

TEST(Retries, AreNotLimitedByTheBudgetAfterALostConnection) {
  Rig rig;
  rig.pass(milliseconds(200));
  constexpr size_t kCalls = 1'000;
  for (size_t i = 0; i < kCalls; ++i) {
    rig.session.call(protocol::GetStatus{}, rig.clock.now() + seconds(60), rig.turn(), [](auto, const Turn&) {});
  }
  rig.collect();
  rig.down = true;
  rig.pass(seconds(10));
  EXPECT_EQ(rig.all<protocol::GetStatus>().size(), kCalls) << "nobody there to ask";
  rig.sent.clear();
  rig.down = false;
  rig.pass(milliseconds(1'500));
  EXPECT_EQ(rig.all<protocol::GetStatus>().size(), kCalls);
}

TEST(Retries, OfABackupAreNone) {
  Rig rig;
  rig.pass(milliseconds(200));
  std::optional<Refusal> refusal;
  rig.session.call(protocol::Backup{}, rig.clock.now() + seconds(30), rig.turn(),
                   [&](auto result, const Turn&) { refusal = result.refusal(); });
  rig.pass(seconds(10));
  ++rig.term;
  rig.pass(seconds(25));
  EXPECT_EQ(rig.all<protocol::Backup>().size(), 1u);
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->code, ErrorCode::kUnavailable);
}

}  // namespace session_flow_test
}  // namespace optserve::client

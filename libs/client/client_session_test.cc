#include "client/client_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "base/limits.h"
#include "client/session_test_rig.h"
#include "protocol/codec.h"

namespace optserve::client {
namespace client_session_test {

// --- requests

TEST(Calls, UnansweredRequestIsRepeatedUnchangedThenRefused) {
  Rig rig;
  rig.pass(milliseconds(200));
  int answers = 0;
  std::optional<Refusal> refusal;
  rig.session.call(protocol::GetStatus{}, rig.clock.now() + seconds(10), rig.turn(), [&](auto result, const Turn&) {
    ++answers;
    if (!result.ok()) refusal = result.refusal();
  });
  rig.pass(seconds(20));
  const auto sent = rig.all<protocol::GetStatus>();
  EXPECT_GE(sent.size(), 3u);
  EXPECT_LE(sent.size(), 5u);
  for (const auto& request : sent) EXPECT_EQ(request.request, sent[0].request);
  EXPECT_EQ(answers, 1);
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->code, ErrorCode::kUnavailable);
  EXPECT_THAT(refusal->message, ::testing::HasSubstr("tcp://scheduler:1"));
}

TEST(Calls, FirstAnswerCounts) {
  Rig rig;
  rig.pass(milliseconds(200));
  std::vector<uint64_t> terms;
  rig.session.call(protocol::GetStatus{}, rig.clock.now() + seconds(10), rig.turn(), [&](auto result, const Turn&) {
    terms.push_back(std::get<protocol::SystemStatus>(result.value()).term);
  });
  rig.collect();
  protocol::SystemStatus status;
  status.request = rig.all<protocol::GetStatus>().at(0).request;
  status.term = 8;
  rig.receive(status);
  status.term = 9;
  rig.receive(status);
  EXPECT_EQ(terms, std::vector<uint64_t>{8});
}

TEST(Calls, AreSentAsSoonAsTheConnectionIsUp) {
  Rig rig;
  rig.down = true;
  rig.session.call(protocol::GetStatus{}, rig.clock.now() + seconds(10), rig.turn(), [](auto, const Turn&) {});
  rig.pass(milliseconds(500), milliseconds(10));
  const size_t before = rig.all<protocol::GetStatus>().size();
  rig.down = false;
  rig.pass(milliseconds(100), milliseconds(10));
  EXPECT_EQ(rig.all<protocol::GetStatus>().size(), before + 1);
}

TEST(Calls, RefusalIsTheAnswer) {
  Rig rig;
  rig.answer = [&](const Message& message) {
    if (const auto* cancel = std::get_if<protocol::Cancel>(&message)) {
      rig.receive(Refused{cancel->request, ErrorCode::kNotFound, "no such job"});
    }
  };
  std::optional<Refusal> refusal;
  rig.session.call(protocol::Cancel{}, rig.clock.now() + seconds(10), rig.turn(),
                   [&](auto result, const Turn&) { refusal = result.refusal(); });
  rig.pass(milliseconds(200));
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->message, "no such job");
}

TEST(Calls, CloseEndsThem) {
  Rig rig;
  Seen seen;
  rig.accept_one(Id128::random(), seen);
  int refused = 0;
  rig.session.call(protocol::GetStatus{}, rig.clock.now() + seconds(10), rig.turn(),
                   [&](auto result, const Turn&) { refused += !result.ok(); });
  rig.session.close(refuse(ErrorCode::kCancelled, "closed"), rig.turn());
  EXPECT_EQ(refused, 1);
  EXPECT_EQ(seen.lost, 1);
  EXPECT_EQ(seen.finished, 0);
}

// --- submit

TEST(SubmitJobs, KeysAreGivenAndBadJobsRefusedHere) {
  Rig rig;
  rig.pass(milliseconds(200));
  std::vector<JobSpec> jobs(4, Rig::good_job());
  jobs[0].key = "mine";
  jobs[1].priority = 99;
  jobs[2].prompt = "\xff";
  rig.answer = [&](const Message& message) {
    const auto* submit = std::get_if<Submit>(&message);
    if (submit == nullptr) return;
    ASSERT_EQ(submit->jobs.size(), 2u);
    EXPECT_EQ(submit->jobs[0].key, "mine");
    EXPECT_EQ(submit->jobs[1].key.size(), 32u);
    EXPECT_FALSE(submit->stream);
    rig.receive(
        SubmitReply{submit->request, {{JobId{}, {}, "", 1, false}, {{}, ErrorCode::kUnknownModel, "m", 0, false}}});
  };
  rig.submit(std::move(jobs));
  ASSERT_TRUE(rig.outcomes && rig.outcomes->ok());
  const Outcomes& outcomes = rig.outcomes->value();
  EXPECT_TRUE(outcomes[0].job);
  EXPECT_THAT(outcomes[1].message, ::testing::HasSubstr("priority"));
  EXPECT_THAT(outcomes[2].message, ::testing::HasSubstr("UTF-8"));
  EXPECT_EQ(outcomes[3].error, ErrorCode::kUnknownModel);
}

// Of three jobs, the scheduler accepts one and refuses one, and is too busy for the third for `busy_answers` answers.
struct BusyRig : Rig {
  explicit BusyRig(int busy_answers) {
    pass(milliseconds(200));
    answer = [this, busy_answers](const Message& message) {
      const auto* submit = std::get_if<Submit>(&message);
      if (submit == nullptr) return;
      ++answers;
      const bool first = answers == 1, busy = answers <= busy_answers;
      protocol::SubmitOutcome third{last, {}, "", 0, false};
      if (busy) third = {{}, ErrorCode::kBusy, "full", 0, false};
      receive(SubmitReply{submit->request,
                          {{JobId{}, {}, "", 1, !first}, {{}, ErrorCode::kUnknownModel, "m", 0, false}, third}});
    };
    submit(std::vector<JobSpec>(3, good_job()));
  }
  int answers = 0;
  JobId last = Id128::random();
};

TEST(SubmitJobs, IsRepeatedForThoseThatTheSchedulerIsTooBusyFor) {
  BusyRig rig(3);
  EXPECT_FALSE(rig.outcomes);
  rig.pass(seconds(9));
  ASSERT_TRUE(rig.outcomes && rig.outcomes->ok());
  const Outcomes& outcomes = rig.outcomes->value();
  EXPECT_EQ(rig.answers, 4);
  EXPECT_FALSE(outcomes[0].duplicate) << "the first answer of a decided job counts";
  EXPECT_EQ(outcomes[1].error, ErrorCode::kUnknownModel);
  EXPECT_EQ(outcomes[2].job, rig.last);
  const auto sent = rig.all<Submit>();
  for (const Submit& submit : sent) EXPECT_TRUE(submit == sent[0]) << "with the same keys";
}

TEST(SubmitJobs, ASchedulerThatStaysBusyIsTheAnswerAtTheDeadline) {
  BusyRig rig(1'000);
  rig.pass(seconds(11));
  ASSERT_TRUE(rig.outcomes && rig.outcomes->ok());
  EXPECT_TRUE(rig.outcomes->value()[0].job);
  EXPECT_EQ(rig.outcomes->value()[2].error, ErrorCode::kBusy);
  EXPECT_THAT(rig.answers, ::testing::AllOf(::testing::Ge(4), ::testing::Le(8)));
}

TEST(SubmitJobs, WhatWasAcceptedIsKnownThoughTheBusySchedulerWentAway) {
  BusyRig rig(1'000);
  rig.answer = nullptr;
  rig.pass(seconds(11));
  ASSERT_TRUE(rig.outcomes && rig.outcomes->ok());
  EXPECT_TRUE(rig.outcomes->value()[0].job);
  EXPECT_EQ(rig.outcomes->value()[2].error, ErrorCode::kBusy);
}

TEST(SubmitJobs, OnlyBadJobsNeedNoScheduler) {
  Rig rig;
  rig.submit({JobSpec{}});
  ASSERT_TRUE(rig.outcomes && rig.outcomes->ok());
  EXPECT_TRUE(rig.outcomes->value().at(0).error);
  EXPECT_TRUE(rig.all<Submit>().empty());
}

TEST(SubmitJobs, TravelInMessagesThatTheSchedulerAccepts) {
  Rig rig;
  rig.pass(milliseconds(200));
  size_t jobs_sent = 0;
  rig.answer = [&](const Message& message) {
    const auto* submit = std::get_if<Submit>(&message);
    if (submit == nullptr) return;
    EXPECT_LE(submit->jobs.size(), limits::kJobsPerSubmitMax);
    EXPECT_LE(protocol::encode(message).size(), limits::kClientMessageBytesMax);
    Outcomes outcomes;
    for (const JobSpec& job : submit->jobs) {
      outcomes.emplace_back().message = job.tenant;
      ++jobs_sent;
    }
    rig.receive(SubmitReply{submit->request, outcomes});
  };
  std::vector<JobSpec> jobs(1'000, Rig::good_job());
  for (size_t i = 0; i < jobs.size(); ++i) {
    jobs[i].tenant = std::to_string(i);
    if (i % 9 == 0) jobs[i].prompt.assign(limits::kPromptBytesMax, 'x');
  }
  rig.submit(std::move(jobs));
  EXPECT_EQ(jobs_sent, 1'000u);
  ASSERT_TRUE(rig.outcomes && rig.outcomes->ok());
  for (size_t i = 0; i < 1'000; ++i) EXPECT_EQ(rig.outcomes->value()[i].message, std::to_string(i));
}

TEST(SubmitJobs, LostReplyIsHealedByTheSameKey) {
  Rig rig;
  rig.pass(milliseconds(200));
  const JobId job = Id128::random();
  std::vector<std::string> keys;
  rig.answer = [&](const Message& message) {
    const auto* submit = std::get_if<Submit>(&message);
    if (submit == nullptr) return;
    keys.push_back(submit->jobs.at(0).key);
    if (keys.size() < 3) return;
    rig.receive(SubmitReply{submit->request, {{job, std::nullopt, "", 0, true}}});
  };
  Seen seen;
  rig.submit({Rig::good_job()}, seen.stream());
  rig.pass(seconds(9));
  ASSERT_TRUE(rig.outcomes && rig.outcomes->ok());
  ASSERT_EQ(keys.size(), 3u);
  EXPECT_EQ(keys[0], keys[2]);
  // The scheduler may have sent the events of a known job long ago.
  ASSERT_EQ(rig.all<Attach>().size(), 1u);
  EXPECT_EQ(rig.all<Attach>()[0].job, job);
}

// --- streams

TEST(Streams, PiecesOnceAndInOrder) {
  Rig rig;
  Seen seen;
  const JobId job = Id128::random();
  rig.accept_one(job, seen);
  rig.receive(event(job, 0, "Once"));
  rig.receive(event(job, 4, " upon"));
  rig.receive(event(job, 4, " upon"));        // again
  rig.receive(event(job, 0, "Once upon a"));  // overlap: the tail is new
  EXPECT_EQ(seen.text, "Once upon a");
  rig.receive(finished(job, "Once upon a time"));
  rig.receive(finished(job, "Once upon a time"));
  rig.receive(event(job, 11, " time"));
  EXPECT_EQ(seen.text, "Once upon a time");
  EXPECT_EQ(seen.finished, 1);
  EXPECT_EQ(seen.lost, 0);
  rig.pass(seconds(30));
  EXPECT_TRUE(rig.all<Attach>().empty());
}

TEST(Streams, GapIsAskedForOnce) {
  Rig rig;
  Seen seen;
  const JobId job = Id128::random();
  rig.accept_one(job, seen);
  rig.receive(event(job, 0, "ab"));
  for (uint64_t offset = 5; offset < 10; ++offset) rig.receive(event(job, offset, "x"));
  rig.pass(milliseconds(150));
  ASSERT_EQ(rig.all<Attach>().size(), 1u);
  EXPECT_EQ(rig.all<Attach>()[0].text_offset, 2u);
  rig.receive(event(job, 2, "cdefghij"));
  EXPECT_EQ(seen.text, "abcdefghij");
}

TEST(Streams, EventsBeforeTheReplyAreFetchedAgain) {
  Rig rig;
  Seen seen;
  const JobId job = Id128::random();
  rig.answer = [&](const Message& message) {
    if (const auto* submit = std::get_if<Submit>(&message)) {
      rig.receive(finished(job, "done"));
      rig.receive(SubmitReply{submit->request, {{job, std::nullopt, "", 0, false}}});
    }
    if (std::holds_alternative<Attach>(message)) rig.receive(finished(job, "done"));
  };
  rig.pass(milliseconds(200));
  rig.submit({Rig::good_job()}, seen.stream());
  rig.pass(milliseconds(200));
  EXPECT_EQ(seen.text, "done");
  EXPECT_EQ(seen.finished, 1);
}

TEST(Streams, SilentOneIsAttachedAgain) {
  Rig rig;
  Seen seen;
  const JobId job = Id128::random();
  rig.accept_one(job, seen);
  rig.receive(event(job, 0, "abc"));
  rig.pass(seconds(9));
  EXPECT_TRUE(rig.all<Attach>().empty());
  rig.pass(seconds(2));
  ASSERT_EQ(rig.all<Attach>().size(), 1u);
  EXPECT_EQ(rig.all<Attach>()[0].text_offset, 3u);
}

TEST(Streams, UnknownJobIsLostOnceAndOtherRefusalsAreNot) {
  Rig rig;
  Seen seen;
  const JobId job = Id128::random();
  rig.accept_one(job, seen);
  rig.pass(seconds(11));
  rig.receive(Refused{rig.all<Attach>().at(0).request, ErrorCode::kBusy, "later"});
  EXPECT_EQ(seen.lost, 0);
  rig.pass(seconds(14));
  rig.receive(Refused{rig.all<Attach>().at(1).request, ErrorCode::kNotFound, "expired"});
  rig.receive(Refused{rig.all<Attach>().at(1).request, ErrorCode::kNotFound, "expired"});
  EXPECT_EQ(seen.lost, 1);
  EXPECT_EQ(seen.finished, 0);
}

TEST(Streams, SeveralFollowersOfOneJob) {
  Rig rig;
  Seen first, second;
  const JobId job = Id128::random();
  rig.accept_one(job, first);
  rig.receive(event(job, 0, "abc"));
  const auto id = rig.session.follow(job, 0, second.stream(), rig.turn());
  rig.pass(milliseconds(100));
  ASSERT_EQ(rig.all<Attach>().size(), 1u);
  EXPECT_EQ(rig.all<Attach>()[0].text_offset, 0u);
  rig.receive(event(job, 0, "abcd"));
  EXPECT_EQ(first.text, "abcd");
  EXPECT_EQ(second.text, "abcd");
  rig.session.unfollow(id);
  rig.receive(finished(job, "abcde"));
  EXPECT_EQ(first.finished, 1);
  EXPECT_EQ(second.finished, 0);
}

// --- connection

TEST(Connection, NewSchedulerIsAskedForEverythingAgain) {
  Rig rig;
  Seen seen;
  const JobId job = Id128::random();
  rig.accept_one(job, seen);
  rig.receive(event(job, 0, "abc"));
  rig.session.call(protocol::GetStatus{}, rig.clock.now() + seconds(10), rig.turn(), [](auto, const Turn&) {});
  rig.collect();
  rig.term = 2;
  rig.pass(milliseconds(1'500));
  EXPECT_EQ(rig.all<protocol::GetStatus>().size(), 2u);
  ASSERT_EQ(rig.all<Attach>().size(), 1u);
  EXPECT_EQ(rig.all<Attach>()[0].text_offset, 3u);
  EXPECT_EQ(seen.lost, 0);
}

TEST(Connection, SilenceMakesANewOne) {
  Rig rig;
  Seen seen;
  const JobId job = Id128::random();
  rig.accept_one(job, seen);
  rig.term = 0;
  rig.pass(milliseconds(4'000));
  EXPECT_EQ(rig.reconnects, 0u);
  rig.pass(milliseconds(8'000));
  EXPECT_GE(rig.reconnects, 1u);
  EXPECT_TRUE(rig.all<Attach>().empty());  // nobody there to ask
  rig.term = 1;
  rig.pass(milliseconds(1'500));
  EXPECT_GE(rig.all<Attach>().size(), 1u);
}

TEST(Connection, ANewOneIsAskedForEverythingAgain) {
  Rig rig;
  Seen seen;
  const JobId job = Id128::random();
  rig.accept_one(job, seen);
  rig.receive(event(job, 0, "abc"));
  rig.session.on_connected(0, rig.clock.now(), rig.out);  // so short a break that nothing was sent meanwhile
  rig.pass(milliseconds(500));
  ASSERT_EQ(rig.all<Attach>().size(), 1u);
  EXPECT_EQ(rig.all<Attach>()[0].text_offset, 3u);
}

TEST(Connection, PingsEachSecondWhileUp) {
  Rig rig;
  rig.pass(milliseconds(500));
  rig.sent.clear();
  rig.pass(seconds(10));
  EXPECT_GE(rig.all<Ping>().size(), 9u);
  EXPECT_LE(rig.all<Ping>().size(), 11u);
}

// Whatever the network drops, repeats or reorders, and however often the scheduler restarts, the text arrives
// completely and once.
TEST(Connection, AnyFaultsGiveTheSameText) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  int accepted_runs = 0;
  for (int run = 0; run < 300; ++run) {
    Rig rig(random());
    Seen seen;
    const JobId job = Id128::random();
    std::string text;
    for (int i = 0; i < 400; ++i) text += static_cast<char>('a' + random() % 26);
    size_t generated = 0;
    bool accepted = false, quiet = false;
    std::vector<Message> network;
    rig.answer = [&](const Message& message) {
      if (!quiet && random() % 3 == 0) return;
      if (const auto* submit = std::get_if<Submit>(&message)) {
        network.push_back(SubmitReply{submit->request, {{job, std::nullopt, "", 0, accepted}}});
        accepted = true;
      }
      if (const auto* attach = std::get_if<Attach>(&message)) {
        if (generated == text.size()) {
          network.push_back(finished(job, text));
        } else if (attach->text_offset < generated) {
          network.push_back(event(job, attach->text_offset, text.substr(attach->text_offset, generated)));
        }
      }
    };
    rig.submit({Rig::good_job()}, seen.stream());
    for (int step = 0; step < 4'000 && seen.finished == 0; ++step) {
      quiet = step > 1'500;
      rig.down = !quiet && random() % 10 == 0;
      if (!quiet && random() % 100 == 0) ++rig.term;
      rig.pass(milliseconds(50));
      if (accepted && generated < text.size() && random() % 4 == 0) {
        const size_t more = std::min<size_t>(1 + random() % 9, text.size() - generated);
        network.push_back(event(job, generated, text.substr(generated, more)));
        generated += more;
        if (generated == text.size()) network.push_back(finished(job, text));
      }
      std::shuffle(network.begin(), network.begin() + static_cast<std::ptrdiff_t>(network.size() / 2), random);
      std::vector<Message> later;
      for (auto& message : std::exchange(network, {})) {
        const uint64_t fate = quiet ? 9 : random() % 10;
        if (fate == 0) continue;
        if (fate < 3) later.push_back(message);
        if (fate >= 2) rig.receive(message);
      }
      network.insert(network.begin(), later.begin(), later.end());
    }
    if (!rig.outcomes || !rig.outcomes->ok()) continue;  // ten seconds of bad luck: refused, nothing streamed
    ++accepted_runs;
    ASSERT_EQ(seen.text, text);
    ASSERT_EQ(seen.finished, 1);
    ASSERT_EQ(seen.lost, 0);
  }
  EXPECT_GT(accepted_runs, 150);
}

}  // namespace client_session_test
}  // namespace optserve::client

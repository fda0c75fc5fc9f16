// What followers get of a job's text and progress, whatever messages arrive.
#include "client/job_streams.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "client/session_test_rig.h"

namespace optserve::client {
namespace job_streams_test {

JobEvent progress_event(const JobId& job, JobState state, uint32_t position, int64_t eta_ms) {
  JobEvent event;
  event.job = job;
  event.state = state;
  event.position = position;
  event.eta_ms = eta_ms;
  return event;
}

// Streams, a clock and what was attached.
struct Streams {
  Streams() : streams(options(), [this] { return ++requests; }) {}
  static SessionOptions options() {
    SessionOptions options;
    options.seed = 1;
    return options;
  }
  Turn turn() { return {clock.now(), out}; }
  void receive(const JobEvent& event) { streams.on_event(event, turn()); }
  std::vector<Attach> attached() {
    std::vector<Attach> found;
    for (const auto& item : out.take()) found.push_back(std::get<Attach>(item.message));
    return found;
  }

  FakeClock clock;
  Outbox out;
  uint64_t requests = 0;
  JobStreams streams;
};

TEST(JobProgress, IsToldWhenItChanges) {
  Streams rig;
  Seen seen;
  const JobId job = Id128::random();
  rig.streams.follow_new(job, seen.stream(), rig.turn());
  rig.receive(progress_event(job, JobState::kQueued, 3, 900));
  rig.receive(progress_event(job, JobState::kQueued, 3, 900));
  rig.receive(progress_event(job, JobState::kQueued, 2, 900));
  rig.receive(progress_event(job, JobState::kQueued, 2, 500));
  rig.receive(progress_event(job, JobState::kRunning, 0, -1));
  JobEvent text = progress_event(job, JobState::kRunning, 0, -1);
  text.text = "a";
  text.tokens = 1;
  rig.receive(text);
  rig.receive(text);  // again
  ASSERT_EQ(seen.progress.size(), 5u);
  EXPECT_EQ(seen.progress[0].position, 3u);
  EXPECT_EQ(seen.progress[1].position, 2u);
  EXPECT_EQ(seen.progress[2].eta_ms, 500);
  EXPECT_EQ(seen.progress[3].state, JobState::kRunning);
  EXPECT_EQ(seen.progress[4].tokens, 1u);
  EXPECT_EQ(seen.text, "a");
}

TEST(JobProgress, OfARequeuedJobIsToldThoughItsTextIsKnown) {
  Streams rig;
  Seen seen;
  const JobId job = Id128::random();
  rig.streams.follow_new(job, seen.stream(), rig.turn());
  JobEvent text = progress_event(job, JobState::kRunning, 0, -1);
  text.text = "abc";
  rig.receive(text);
  rig.receive(progress_event(job, JobState::kQueued, 7, -1));
  ASSERT_EQ(seen.progress.size(), 2u);
  EXPECT_EQ(seen.progress[1].position, 7u);
  EXPECT_EQ(seen.progress[1].text_offset, 3u) << "what was delivered stays delivered";
}

TEST(JobProgress, EachFollowerIsToldTheFirst) {
  Streams rig;
  Seen first, second;
  const JobId job = Id128::random();
  rig.streams.follow_new(job, first.stream(), rig.turn());
  rig.receive(progress_event(job, JobState::kQueued, 3, -1));
  rig.streams.follow(job, 0, second.stream(), rig.turn());
  rig.receive(progress_event(job, JobState::kQueued, 3, -1));
  EXPECT_EQ(first.progress.size(), 1u);
  EXPECT_EQ(second.progress.size(), 1u);
}

TEST(JobText, SchedulerThatForgotTheTailIsHeardFromWhereItGoesOn) {
  Streams rig;
  Seen seen;
  const JobId job = Id128::random();
  rig.streams.follow_new(job, seen.stream(), rig.turn());
  rig.receive(event(job, 0, "Once upon").events[0]);
  rig.streams.attach_all(Duration{}, rig.clock.now());
  rig.streams.attach_due(rig.turn());
  ASSERT_EQ(rig.attached().at(0).text_offset, 9u);
  // It only knows "Once", and generates the rest again in other pieces.
  rig.receive(event(job, 4, " u").events[0]);
  rig.receive(event(job, 6, "po").events[0]);
  EXPECT_EQ(seen.text, "Once upon");
  rig.receive(event(job, 8, "n a").events[0]);
  EXPECT_EQ(seen.text, "Once upon a");
  rig.streams.on_finished(finished(job, "Once upon a time").result);
  EXPECT_EQ(seen.text, "Once upon a time");
}

TEST(JobText, ResultThatIsShorterThanWhatWasDeliveredAddsNothing) {
  Streams rig;
  Seen seen;
  const JobId job = Id128::random();
  rig.streams.follow_new(job, seen.stream(), rig.turn());
  rig.receive(event(job, 0, "Once upon").events[0]);
  JobResult cut = finished(job, "Once").result;
  cut.state = JobState::kCancelled;
  rig.streams.on_finished(cut);
  EXPECT_EQ(seen.text, "Once upon");
  EXPECT_EQ(seen.finished, 1);
}

// A follower that keeps the text since the last restart.
JobStream restartable(Seen& seen, int& restarts, const JobId& job) {
  JobStream stream = seen.stream();
  stream.on_restarted = [&seen, &restarts, job](const JobId& which) {
    EXPECT_EQ(which, job);
    ++restarts;
    seen.text.clear();
  };
  return stream;
}

TEST(JobText, TextThatWasComputedAnewAndDiffersBeginsAgain) {
  Streams rig;
  Seen seen;
  int restarts = 0;
  const JobId job = Id128::random();
  rig.streams.follow_new(job, restartable(seen, restarts, job), rig.turn());
  rig.receive(event(job, 0, "Once ").events[0]);
  rig.receive(event(job, 5, "upon").events[0]);
  rig.streams.attach_all(Duration{}, rig.clock.now());
  rig.streams.attach_due(rig.turn());
  const auto attached = rig.attached();
  ASSERT_EQ(attached.size(), 1u);
  EXPECT_EQ(attached[0].text_offset, 9u);
  EXPECT_EQ(attached[0].text_digest, protocol::text_digest("Once upon"));
  JobEvent anew = event(job, 0, "Once a").events[0];
  anew.restarted = true;
  rig.receive(anew);
  EXPECT_EQ(restarts, 1);
  rig.receive(event(job, 6, " day").events[0]);
  EXPECT_EQ(seen.text, "Once a day");
  rig.streams.on_finished(finished(job, "Once a day.").result);
  EXPECT_EQ(seen.text, "Once a day.");
  EXPECT_EQ(restarts, 1);
}

TEST(JobText, AResultWithAnotherTextBeginsAgain) {
  for (const std::string text : {"Once a day in May", "Once"}) {
    Streams rig;
    Seen seen;
    int restarts = 0;
    const JobId job = Id128::random();
    rig.streams.follow_new(job, restartable(seen, restarts, job), rig.turn());
    rig.receive(event(job, 0, "Once upon").events[0]);
    rig.streams.on_finished(finished(job, text).result);
    EXPECT_EQ(seen.text, text);
    EXPECT_EQ(restarts, 1);
  }
}

TEST(JobText, OneTooManyFollowersIsToldSo) {
  Streams rig;
  Seen seen;
  Refusal lost{};
  const JobId job = Id128::random();
  JobStream stream = seen.stream();
  stream.on_lost = [&lost, job](const JobId& which, const Refusal& why) {
    EXPECT_EQ(which, job);
    lost = why;
  };
  rig.streams.follow(job, 0, stream, rig.turn());
  rig.streams.attach_due(rig.turn());
  const auto attached = rig.attached();
  EXPECT_TRUE(rig.streams.on_refused({attached.at(0).request, ErrorCode::kBusy, "64 followers"}, rig.turn()));
  EXPECT_EQ(lost.code, ErrorCode::kBusy);
  // A stream that was heard waits, since its own lost connection may be the one too many.
  lost = {};
  rig.streams.follow(job, 0, stream, rig.turn());
  rig.receive(event(job, 0, "Once").events[0]);
  rig.streams.attach_all(Duration{}, rig.clock.now());
  rig.streams.attach_due(rig.turn());
  EXPECT_TRUE(rig.streams.on_refused({rig.attached().at(0).request, ErrorCode::kBusy, "64 followers"}, rig.turn()));
  EXPECT_EQ(lost.message, "");
}

TEST(JobText, AFollowerThatComesTooOftenComesLater) {
  Streams rig;
  Seen seen;
  const JobId job = Id128::random();
  rig.streams.follow(job, 0, seen.stream(), rig.turn());
  rig.streams.attach_due(rig.turn());
  Refused refused{rig.attached().at(0).request, ErrorCode::kBusy, "60 messages a minute"};
  refused.retry_after_ms = 2'000;
  EXPECT_TRUE(rig.streams.on_refused(refused, rig.turn()));
  EXPECT_EQ(seen.lost, 0);
  rig.clock.advance(milliseconds(1'900));
  rig.streams.attach_due(rig.turn());
  EXPECT_TRUE(rig.attached().empty());
  rig.clock.advance(milliseconds(700));
  rig.streams.attach_due(rig.turn());
  EXPECT_EQ(rig.attached().size(), 1u);
}

TEST(JobText, ConsumedCountsWhatCameWhetherOrNotItWasUsed) {
  Streams rig;
  Seen seen;
  const JobId job = Id128::random();
  rig.streams.follow_new(job, seen.stream(), rig.turn());
  const JobEvent one = event(job, 0, "Once").events[0];
  uint64_t expected = 0;
  rig.receive(one), expected += protocol::stream_cost(one);
  rig.receive(one), expected += protocol::stream_cost(one);
  const JobEvent other = event(Id128::random(), 0, "nobody follows this").events[0];
  rig.receive(other), expected += protocol::stream_cost(other);
  const JobResult end = finished(job, "Once").result;
  rig.streams.on_finished(end), expected += protocol::stream_cost(end);
  EXPECT_EQ(rig.streams.consumed(), expected);
}

// For any pieces of the text, cut and ordered at random, with repetitions, gaps and steps back, followers get each byte
// once and in order, and requests for more begin where the one with the least text is.
TEST(JobText, RandomPiecesInRandomOrder) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const auto below = [&](size_t end) { return static_cast<size_t>(random() % end); };
  for (int run = 0; run < 500; ++run) {
    Streams rig;
    const JobId job = Id128::random();
    std::string text;
    for (int i = 0; i < 200; ++i) text += static_cast<char>('a' + random() % 26);
    std::vector<Seen> seen(1 + below(3));
    for (Seen& one : seen) rig.streams.follow_new(job, one.stream(), rig.turn());
    for (int step = 0; step < 200; ++step) {
      rig.clock.advance(milliseconds(static_cast<int64_t>(below(300))));
      size_t begin = below(text.size());
      if (below(2) == 0) begin = seen[0].text.size() - std::min(seen[0].text.size(), below(20));
      rig.receive(event(job, begin, text.substr(begin, below(30))).events[0]);
      if (below(10) == 0) rig.streams.attach_all(milliseconds(50), rig.clock.now());
      rig.streams.attach_due(rig.turn());
      for (const Attach& attach : rig.attached()) {
        ASSERT_EQ(attach.text_offset, seen[0].text.size());
        if (below(2) == 0) {
          rig.receive(event(job, attach.text_offset, text.substr(attach.text_offset, below(40))).events[0]);
        }
      }
      for (const Seen& one : seen) ASSERT_TRUE(text.starts_with(one.text));
    }
    const JobResult end = finished(job, text).result;
    rig.streams.on_finished(end);
    rig.streams.on_finished(end);
    for (const Seen& one : seen) {
      ASSERT_EQ(one.text, text);
      ASSERT_EQ(one.finished, 1);
    }
  }
}

}  // namespace job_streams_test
}  // namespace optserve::client

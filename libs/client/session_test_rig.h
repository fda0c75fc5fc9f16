// For tests: a client session without a network, and a stream that records what it delivers.
#pragma once

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "client/client_session.h"

namespace optserve::client {

using protocol::Attach;
using protocol::JobEvent;
using protocol::JobEvents;
using protocol::JobFinished;
using protocol::JobResult;
using protocol::JobSpec;
using protocol::JobState;
using protocol::Message;
using protocol::Ping;
using protocol::Pong;
using protocol::Refused;
using protocol::Submit;
using protocol::SubmitReply;
using Outcomes = std::vector<protocol::SubmitOutcome>;

// What a stream delivered.
struct Seen {
  std::string text;
  int finished = 0;
  int lost = 0;
  JobResult result;
  std::vector<JobEvent> progress;
  JobStream stream() {
    JobStream stream;
    stream.on_text = [this](std::string_view piece, const JobEvent& event) {
      EXPECT_EQ(event.text_offset, text.size());
      EXPECT_EQ(event.text, piece);
      EXPECT_FALSE(piece.empty());
      EXPECT_EQ(finished + lost, 0) << "text after the end";
      text += piece;
    };
    stream.on_progress = [this](const JobEvent& event) {
      EXPECT_EQ(finished + lost, 0) << "progress after the end";
      progress.push_back(event);
    };
    stream.on_finished = [this](const JobResult& r) {
      ++finished;
      result = r;
    };
    stream.on_lost = [this](const JobId&, const Refusal&) { ++lost; };
    return stream;
  }
};

// A clock, and what a service sends. `Made` has on_tick() and collect(), which responds to what was sent.
template <class Made>
struct ClockedRig {
  Turn turn() { return {clock.now(), out}; }
  void pass(Duration time, Duration step = milliseconds(50)) {
    for (Duration done{}; done < time; done += step) {
      clock.advance(step);
      static_cast<Made*>(this)->on_tick();
      static_cast<Made*>(this)->collect();
    }
  }

  FakeClock clock;
  Outbox out;
};

// A session, a clock, and what the session sent. `answer` acts as the scheduler.
struct Rig : ClockedRig<Rig> {
  using Answer = std::function<void(const Message&)>;
  explicit Rig(uint64_t seed = 1) : Rig(with_seed(seed)) {}
  explicit Rig(const SessionOptions& options) : session(options) {}
  static SessionOptions with_seed(uint64_t seed) {
    SessionOptions options;
    options.endpoint = "tcp://scheduler:1";
    options.seed = seed;
    return options;
  }
  void on_tick() { session.on_tick(clock.now(), out); }
  void collect() {
    reconnects += out.take_reconnects().size();
    for (auto& item : out.take()) {
      sent.push_back(item.message);
      if (down) {
        session.on_undeliverable({}, std::move(item.message), false, clock.now(), out);
        continue;
      }
      if (const auto* ping = std::get_if<Ping>(&item.message); ping != nullptr && term != 0) {
        receive(Pong{ping->number, term});
      }
      if (answer) answer(item.message);
    }
  }
  void receive(Message message) {
    session.on_message({}, std::move(message), clock.now(), out);
    collect();
  }
  template <class T>
  std::vector<T> all() const {
    std::vector<T> found;
    for (const auto& message : sent) {
      if (const auto* body = std::get_if<T>(&message)) found.push_back(*body);
    }
    return found;
  }
  // Submits one streamed job and has it accepted.
  void accept_one(const JobId& job, Seen& seen) {
    answer = [this, job](const Message& message) {
      if (const auto* submit = std::get_if<Submit>(&message)) {
        receive(SubmitReply{submit->request, {{job, std::nullopt, "", 0, false}}});
      }
    };
    pass(milliseconds(200));
    submit({good_job()}, seen.stream());
    pass(milliseconds(100));
    ASSERT_TRUE(outcomes);
    ASSERT_TRUE(outcomes->ok() && outcomes->value().at(0).job == job);
    answer = nullptr;
    sent.clear();
  }
  void submit(std::vector<JobSpec> jobs, JobStream stream = {}) {
    session.submit(std::move(jobs), std::move(stream), clock.now() + seconds(10), turn(),
                   [this](ClientSession::Submission answered, const Turn&) {
                     EXPECT_FALSE(outcomes) << "answered twice";
                     outcomes = std::move(answered.outcomes);
                   });
    collect();
  }
  static JobSpec good_job() {
    JobSpec job;
    job.model = "m";
    job.prompt = "p";
    return job;
  }

  ClientSession session;
  std::vector<Message> sent;
  size_t reconnects = 0;
  bool down = false;
  uint64_t term = 1;  // 0: pings are not answered
  Answer answer;
  std::optional<Result<Outcomes>> outcomes;
};

inline JobEvents event(const JobId& job, uint64_t offset, const std::string& text) {
  return {{JobEvent{job, offset, text, 0, 0, 0}}};
}
inline JobFinished finished(const JobId& job, const std::string& text) {
  JobFinished message;
  message.result.job = job;
  message.result.state = JobState::kSucceeded;
  message.result.text = text;
  return message;
}

}  // namespace optserve::client

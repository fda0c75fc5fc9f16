// The scheduler stops in the middle and starts again on the same journal.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "journal/journal.h"
#include "scheduler/scheduler_test_world.h"

namespace optserve::scheduler::testing {
namespace scheduler_restart_test {

using protocol::JobState;
using ::testing::HasSubstr;

// The wall clock of a test can be set.
class SteppedClock final : public Clock {
 public:
  explicit SteppedClock(FakeClock& clock) : clock_(clock) {}
  Instant now() const override { return clock_.now(); }
  int64_t wall_ms() const override { return clock_.wall_ms() + offset_ms; }
  std::atomic<int64_t> offset_ms{0};

 private:
  FakeClock& clock_;
};

class SchedulerRestart : public ::testing::Test {
 protected:
  SchedulerRestart() {
    std::string name = (std::filesystem::temp_directory_path() / "optserve-restart-XXXXXX").string();
    check(::mkdtemp(name.data()) != nullptr, "mkdtemp");
    folder_ = name;
  }
  ~SchedulerRestart() override {
    world.reset();
    journal.reset();
    std::filesystem::remove_all(folder_);
  }
  // A new process on the same journal; what the old one had appended is committed.
  void start() {
    world.reset();
    journal.reset();
    journal::Recovery recovery;
    journal = journal::Journal::open({.path = folder_ + "/journal.db", .boot = "test"}, stepped_clock, recovery);
    term = recovery.term;
    world = std::make_unique<World>(SchedulerOptions{}, journal.get(), std::move(recovery), &clock);
  }
  // Ticks until the journal's answers are in.
  template <class M>
  M await(const World::Peer& to) {
    for (int i = 0; i < 500; ++i) {
      world->advance(milliseconds(1));
      auto found = world->take<M>(to);
      if (!found.empty()) return found.front();
      std::this_thread::sleep_for(milliseconds(2));
    }
    ADD_FAILURE() << "nothing came";
    return {};
  }

  FakeClock clock;
  SteppedClock stepped_clock{clock};
  std::string folder_;
  std::unique_ptr<journal::Journal> journal;
  std::unique_ptr<World> world;
  uint64_t term = 0;
};

TEST_F(SchedulerRestart, QueuedAndRunningJobsGoOnAndResultsStay) {
  start();
  EXPECT_EQ(term, 1u);
  world->add_services();
  auto done_spec = job_spec("done", "once", 2);
  const auto done = world->submit_and_dispatch(done_spec);
  world->generate(world->worker, done, 0, 2);
  world->tokenize();
  auto running_spec = job_spec("running", "once", 6);
  running_spec.sampling.seed = 3;
  const auto running = world->submit_and_dispatch(running_spec);
  world->generate(world->worker, running, 0, 2);
  world->clock.advance(milliseconds(1'100));
  world->generate(world->worker, running, 2, 1);  // writes progress: 3 tokens
  const JobId queued = world->submit(job_spec("queued"));

  start();
  EXPECT_EQ(term, 2u);
  EXPECT_EQ(world->service->jobs().size(), 2u);
  world->send(world->client, protocol::GetJob{1, done.job});
  EXPECT_EQ(await<protocol::JobStatus>(world->client).result.text, reference_of(done_spec).text);
  world->send(world->client, protocol::Attach{1, running.job, 1});
  world->add_tokenizer(world->tokenizer, 1);
  world->tokenize();
  EXPECT_EQ(world->take<protocol::JobEvents>(world->client)[0].events[0].text_offset, 1u);
  world->add_worker(world->worker, 2);
  const auto items = world->only<protocol::Dispatch>(world->worker).items;
  ASSERT_EQ(items.size(), 2u);
  EXPECT_EQ(items[0].job, running.job);
  EXPECT_EQ(items[0].tokens.size(), running.tokens.size() + 3);
  EXPECT_EQ(items[1].job, queued);
  world->send(world->worker, protocol::Tokens{1, {running.lease}, {3}, {50}, {0}});  // of the old term
  EXPECT_EQ(world->only<protocol::Revoke>(world->worker).term, 1u);
  world->generate(world->worker, items[0], 3, 3, 2);
  world->tokenize();
  const auto result = world->only<protocol::JobFinished>(world->client).result;
  EXPECT_EQ(result.text, reference_of(running_spec).text);
  EXPECT_EQ(result.attempts, 1);  // the stop was not the worker's fault
}

TEST_F(SchedulerRestart, KeysAreRememberedForOpenAndFinishedJobs) {
  start();
  world->add_services();
  const auto done = world->submit_and_dispatch(job_spec("done", "once", 1));
  world->generate(world->worker, done, 0, 1);
  world->tokenize();
  const JobId open = world->submit(job_spec("open"));
  start();
  EXPECT_EQ(world->submit(job_spec("open")), open);
  EXPECT_EQ(world->submit(job_spec("done", "once", 1)), done.job);
  EXPECT_EQ(await<protocol::JobFinished>(world->client).result.job, done.job);
  EXPECT_EQ(world->submit_refused(job_spec("open", "other")).error, ErrorCode::kIdempotencyConflict);
}

TEST_F(SchedulerRestart, AStepOfTheWallClockLosesNoJobResultOrKey) {
  constexpr int64_t kHourMs = 3'600'000;
  for (const int64_t step_ms :
       {int64_t{1'000}, int64_t{-1'000}, 2 * kHourMs, -2 * kHourMs, 240 * kHourMs, -240 * kHourMs}) {
    SCOPED_TRACE(step_ms);
    const std::string suffix = std::to_string(step_ms);
    start();
    world->add_services();
    const auto before = world->submit_and_dispatch(job_spec("before" + suffix, "once", 1));
    const JobId open = world->submit(job_spec("open" + suffix));  // its time is ten minutes
    world->tokenize();
    stepped_clock.offset_ms += step_ms;
    world->generate(world->worker, before, 0, 1, term);
    world->tokenize();
    world->advance(seconds(2));
    world->add_services();
    start();
    EXPECT_EQ(world->submit(job_spec("before" + suffix, "once", 1), false), before.job);
    world->send(world->client, protocol::GetJob{1, before.job});
    EXPECT_EQ(await<protocol::JobStatus>(world->client).result.state, JobState::kSucceeded);
    world->send(world->client, protocol::GetJob{2, open});
    EXPECT_EQ(await<protocol::JobStatus>(world->client).result.state, JobState::kQueued);
    world->send(world->client, protocol::Cancel{3, open});
    await<protocol::JobStatus>(world->client);
  }
}

TEST_F(SchedulerRestart, AnUnknownModelIsBusyUntilServicesHadTimeToComeBack) {
  start();
  EXPECT_EQ(world->submit_refused(job_spec("a")).error, ErrorCode::kUnknownModel);
  start();
  EXPECT_EQ(world->submit_refused(job_spec("a")).error, ErrorCode::kBusy);
  world->advance(seconds(11));
  EXPECT_EQ(world->submit_refused(job_spec("a")).error, ErrorCode::kUnknownModel);
}

TEST_F(SchedulerRestart, AJobThatStopsTheSchedulerThreeTimesIsDead) {
  start();
  world->add_services();
  auto poison = world->submit_and_dispatch(job_spec("poison"));
  for (int crash = 1; crash < 3; ++crash) {
    start();
    world->add_services();
    world->tokenize();
    world->flush();
    EXPECT_EQ(world->service->jobs().count(Stage::kLeased), 1u) << crash;
  }
  start();
  EXPECT_EQ(world->service->jobs().size(), 0u);
  world->send(world->client, protocol::GetJob{1, poison.job});
  const auto result = await<protocol::JobStatus>(world->client).result;
  EXPECT_EQ(result.state, JobState::kDead);
  EXPECT_THAT(result.message, HasSubstr("stopped 3 times"));
}

TEST_F(SchedulerRestart, AnOrderlyStopIsNotCountedAgainstTheJob) {
  start();
  for (int stop = 0; stop < 5; ++stop) {
    world->add_services();
    if (stop == 0) world->submit(job_spec("long"));
    world->tokenize();
    world->flush();
    EXPECT_EQ(world->service->jobs().count(Stage::kLeased), 1u) << stop;
    world->drain();
    world->service->give_back_leases();
    start();
  }
  EXPECT_EQ(world->service->jobs().size(), 1u);
}

TEST_F(SchedulerRestart, WhatPromisesSomethingWaitsForTheJournal) {
  start();
  world->add_services();
  world->send(world->client, protocol::Submit{7, true, {job_spec("a", "once", 1)}});
  ASSERT_EQ(world->sent.size(), 2u);
  EXPECT_TRUE(std::holds_alternative<protocol::SubmitReply>(world->sent[0].message));
  EXPECT_GT(world->sent[0].after, 0u);
  const uint64_t accepted = world->sent[0].after;
  world->tokenize();
  uint64_t leased = 0;
  for (const auto& item : world->sent) {
    if (std::holds_alternative<protocol::Dispatch>(item.message)) leased = item.after;
  }
  EXPECT_GT(leased, accepted);
  const auto item = world->dispatched(world->worker);
  world->send(world->client, protocol::Cancel{1, item.job});
  for (const auto& message : world->sent) {
    if (std::holds_alternative<protocol::JobStatus>(message.message) ||
        std::holds_alternative<protocol::JobFinished>(message.message)) {
      EXPECT_GT(message.after, leased);
    }
    // A Revoke must not overtake its Dispatch.
    if (std::holds_alternative<protocol::Revoke>(message.message)) {
      EXPECT_GE(message.after, leased);
    }
  }
}

}  // namespace scheduler_restart_test
}  // namespace optserve::scheduler::testing

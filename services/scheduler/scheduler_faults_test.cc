// What happens when peers die, repeat themselves, lie, or come back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "scheduler/scheduler_test_world.h"

namespace optserve::scheduler::testing {
namespace scheduler_faults_test {

using protocol::JobState;
using ::testing::HasSubstr;

TEST(SchedulerFaults, ALostWorkersJobContinuesElsewhereWithItsPrefix) {
  World world;
  world.add_services();
  auto spec = job_spec("a", "once", 8);
  spec.sampling.seed = 3;
  const auto item = world.submit_and_dispatch(spec);
  world.generate(world.worker, item, 0, 3);
  world.tokenize();
  world.add_worker(world.worker2, 3);
  world.send(world.worker, protocol::Goodbye{instance(2)});
  const auto retry = world.dispatched(world.worker2);
  EXPECT_EQ(retry.job, item.job);
  EXPECT_NE(retry.lease, item.lease);
  EXPECT_EQ(retry.tokens.size(), item.tokens.size() + 3);
  EXPECT_EQ(retry.prompt_tokens, item.prompt_tokens);
  world.generate(world.worker2, retry, 3, 5);
  world.tokenize();
  EXPECT_EQ(world.streamed_text(), reference_of(spec).text);
  const auto result = world.only<protocol::JobFinished>(world.client).result;
  EXPECT_EQ(result.text, reference_of(spec).text);
  EXPECT_EQ(result.attempts, 2);
}

TEST(SchedulerFaults, SilenceLosesAWorkerAndHeartbeatsKeepIt) {
  World world;
  world.add_services();
  world.submit_and_dispatch(job_spec("a"));
  for (int i = 0; i < 10; ++i) {
    world.advance(seconds(1));
    world.heartbeat(world.worker, 2, static_cast<uint64_t>(i));
    world.heartbeat(world.tokenizer, 1);
  }
  EXPECT_EQ(world.service->services().size(), 2u);
  EXPECT_EQ(world.take<protocol::Pong>(world.worker).size(), 10u);
  world.advance(seconds(6));
  EXPECT_EQ(world.service->services().size(), 0u);
  world.heartbeat(world.worker, 2);
  EXPECT_EQ(world.only<protocol::Refused>(world.worker).code, ErrorCode::kNotFound);
  EXPECT_EQ(world.service->jobs().count(Stage::kWaiting), 1u);
}

TEST(SchedulerFaults, AWorkerThatLivesButDoesNotMoveIsLost) {
  World world;
  world.add_services();
  world.submit_and_dispatch(job_spec("a"));
  for (uint64_t i = 0; i < 26; ++i) {
    world.advance(seconds(1));
    world.heartbeat(world.worker, 2, std::min<uint64_t>(i, 3));
  }
  EXPECT_EQ(world.service->jobs().count(Stage::kLeased), 0u);
}

TEST(SchedulerFaults, AttemptsAreBoundedAndThenTheJobIsDead) {
  World world;
  world.add_services();
  auto spec = job_spec("poison");
  spec.max_attempts = 3;
  world.submit(spec);
  world.tokenize();
  for (uint8_t i = 0; i < 3; ++i) {
    const auto item = world.dispatched(world.worker);
    world.send(world.worker, protocol::LeaseFailed{1, item.lease, ErrorCode::kInternal, "rank died", true});
    for (int tick = 0; tick < 40; ++tick) {
      world.advance(seconds(1));
      world.heartbeat(world.worker, 2);
    }
  }
  const auto result = world.only<protocol::JobFinished>(world.client).result;
  EXPECT_EQ(result.state, JobState::kDead);
  EXPECT_EQ(result.error, ErrorCode::kAttemptsExhausted);
  EXPECT_EQ(result.message, "attempt 3 of 3 was lost: rank died");
  EXPECT_TRUE(world.take<protocol::Dispatch>(world.worker).empty());
}

TEST(SchedulerFaults, APermanentFailureIsNotRetried) {
  World world;
  world.add_services();
  const auto item = world.submit_and_dispatch(job_spec("a"));
  world.send(world.worker, protocol::LeaseFailed{1, item.lease, ErrorCode::kBadRequest, "top_k above vocab", false});
  const auto result = world.only<protocol::JobFinished>(world.client).result;
  EXPECT_EQ(result.state, JobState::kFailed);
  EXPECT_EQ(result.error, ErrorCode::kBadRequest);
  EXPECT_EQ(result.message, "top_k above vocab");
}

TEST(SchedulerFaults, ATransientFailureGoesToAnotherGroup) {
  World world;
  world.add_services();
  const auto item = world.submit_and_dispatch(job_spec("a"));
  world.add_worker(world.worker2, 3, 1);
  const World::Peer other{1, "worker3"};
  world.send(world.worker, protocol::LeaseFailed{1, item.lease, ErrorCode::kInternal, "oom", true});
  EXPECT_TRUE(world.take<protocol::Dispatch>(world.worker).empty());
  world.dispatched(world.worker2);
}

TEST(SchedulerFaults, StaleTokensAreDroppedAndRevoked) {
  World world;
  world.add_services();
  const auto item = world.submit_and_dispatch(job_spec("a"));
  world.add_worker(world.worker2, 3);
  world.sent.clear();
  world.send(world.worker2, protocol::Tokens{1, {item.lease}, {0}, {50}, {0}});  // not its lease
  EXPECT_EQ(world.only<protocol::Revoke>(world.worker2), (protocol::Revoke{1, {item.lease}}));
  world.send(world.worker, protocol::Tokens{9, {item.lease}, {0}, {50}, {0}});  // another term
  EXPECT_EQ(world.only<protocol::Revoke>(world.worker), (protocol::Revoke{9, {item.lease}}));
  world.send(world.worker, protocol::Tokens{1, {item.lease + 7}, {0}, {50}, {1}});
  EXPECT_EQ(world.only<protocol::Revoke>(world.worker).leases[0], item.lease + 7);
  EXPECT_TRUE(world.take<protocol::Decode>(world.tokenizer).empty());
}

TEST(SchedulerFaults, RepeatedTokensAreDroppedAndGapsEndTheLease) {
  World world;
  world.add_services();
  const auto item = world.submit_and_dispatch(job_spec("a"));
  world.generate(world.worker, item, 0, 2);
  world.generate(world.worker, item, 0, 2);
  world.tokenize();
  EXPECT_EQ(world.streamed_text().size(), 2u);
  world.send(world.worker, protocol::Tokens{1, {item.lease}, {3}, {50}, {0}});
  EXPECT_EQ(world.only<protocol::Revoke>(world.worker).leases[0], item.lease);
  EXPECT_EQ(world.dispatched(world.worker).tokens.size(), item.tokens.size() + 2);
}

// The worker continues where it should have ended: nothing beyond the limit reaches anybody.

TEST(SchedulerFaults, MoreTokensThanAskedForEndTheLease) {
  World world;
  world.add_services();
  const auto item = world.submit_and_dispatch(ids_spec("a", "", 3));
  send_tokens(world, world.worker, {item.lease}, 0);
  send_tokens(world, world.worker, {item.lease}, 1);
  EXPECT_TRUE(world.take<protocol::Revoke>(world.worker).empty());
  send_tokens(world, world.worker, {item.lease}, 2);
  EXPECT_EQ(world.only<protocol::Revoke>(world.worker).leases[0], item.lease);
  send_tokens(world, world.worker, {item.lease}, 3);
  const auto retry = world.dispatched(world.worker);
  EXPECT_EQ(retry.tokens.size(), item.tokens.size() + 2);
  send_tokens(world, world.worker, {retry.lease}, 2, true);
  world.tokenize();
  const auto result = world.only<protocol::JobFinished>(world.client).result;
  EXPECT_EQ(result.state, JobState::kSucceeded);
  EXPECT_EQ(result.ids.size(), 3u);
}

TEST(SchedulerFaults, NoRequestMakesAMetric) {
  const auto series = [](const World& world) {
    std::vector<std::string> names;
    std::istringstream lines(world.metrics());
    for (std::string line; std::getline(lines, line);) {
      if (!line.starts_with('#')) names.push_back(line.substr(0, line.rfind(' ')));
    }
    return names;
  };
  World world;
  world.add_services();
  world.advance(seconds(2));  // its model has series
  const auto before = series(world);
  EXPECT_GT(before.size(), 50u);
  for (int i = 0; i < 50; ++i) {
    auto spec = ids_spec("key" + std::to_string(i), "tenant" + std::to_string(i));
    spec.group = "group" + std::to_string(i);
    if (i % 3 == 0) spec.model = "model\"} 1\n" + std::to_string(i);
    if (i % 5 == 0) spec.sampling.temperature = -1;
    world.send(world.client, protocol::Submit{7, true, {std::move(spec)}});
  }
  world.add_tokenizer({1, "other"}, 9, "another vocabulary");
  world.advance(seconds(2));
  EXPECT_EQ(series(world), before);
}

TEST(SchedulerFaults, UnevenTokenArraysAreRefused) {
  World world;
  world.add_services();
  world.send(world.worker, protocol::Tokens{1, {1, 2}, {0}, {50}, {0}});
  EXPECT_THAT(world.only<protocol::Refused>(world.worker).message, HasSubstr("expected equal lengths"));
}

TEST(SchedulerFaults, AnUndeliverableDispatchCostsNoAttempt) {
  World world;
  world.add_services();
  world.submit(job_spec("a"));
  world.tokenize();
  auto message = world.only<protocol::Dispatch>(world.worker);
  world.undeliverable(world.worker, message, false);
  world.add_worker(world.worker2, 3);
  const auto item = world.dispatched(world.worker2);
  world.generate(world.worker2, item, 0, 8);
  world.tokenize();
  EXPECT_EQ(world.only<protocol::JobFinished>(world.client).result.attempts, 1);
}

TEST(SchedulerFaults, ANewConnectionOfAWorkerStartsWithoutLeases) {
  World world;
  world.add_services();
  const auto item = world.submit_and_dispatch(job_spec("a"));
  const World::Peer again{1, "worker-again"};
  world.add_worker(again, 2);
  EXPECT_EQ(world.service->services().size(), 2u);
  EXPECT_EQ(world.only<protocol::Revoke>(again).leases, std::vector<uint64_t>{item.lease});
  EXPECT_NE(world.dispatched(again).lease, item.lease);
  world.send(world.worker, protocol::Tokens{1, {item.lease}, {0}, {50}, {0}});
  EXPECT_EQ(world.only<protocol::Refused>(world.worker).code, ErrorCode::kNotFound);
}

// Every answer takes ten seconds, which is longer than the first tries wait; a later try waits long enough.

TEST(SchedulerFaults, AClientThatIsGoneDoesNotStopItsJobAndFetchesItLater) {
  World world;
  world.add_services();
  auto spec = job_spec("a", "once", 4);
  const auto item = world.submit_and_dispatch(spec);
  world.generate(world.worker, item, 0, 1);
  world.tokenize();
  world.undeliverable(world.client, world.only<protocol::JobEvents>(world.client), false);
  world.generate(world.worker, item, 1, 3);
  world.tokenize();
  EXPECT_TRUE(world.take<protocol::JobFinished>(world.client).empty());
  const World::Peer back{0, "client-again"};
  world.send(back, protocol::Attach{3, item.job, 0});
  EXPECT_EQ(world.only<protocol::JobFinished>(back).result.text, reference_of(spec).text);
}

TEST(SchedulerFaults, ReattachingContinuesAtTheOffset) {
  World world;
  world.add_services();
  const auto item = world.submit_and_dispatch(job_spec("a", "once", 8));
  world.generate(world.worker, item, 0, 4);
  world.tokenize();
  const World::Peer second{0, "second"};
  world.send(second, protocol::Attach{3, item.job, 3});
  const auto events = world.only<protocol::JobEvents>(second).events;
  EXPECT_EQ(events[0].text_offset, 3u);
  EXPECT_EQ(events[0].text.size(), 1u);
  world.send(second, protocol::Attach{3, item.job, 9});  // has more than is there yet: nothing is sent twice
  EXPECT_TRUE(world.take<protocol::JobEvents>(second).empty());
  world.send(second, protocol::Attach{4, JobId{}, 0});
  world.advance(milliseconds(100));
  EXPECT_EQ(world.only<protocol::Refused>(second).code, ErrorCode::kNotFound);
}

TEST(SchedulerFaults, ASlowClientContinuesWhereItStoppedAndHoldsUpNobody) {
  World world;
  world.add_services();
  const auto item = world.submit_and_dispatch(job_spec("a", "once", 8));
  world.generate(world.worker, item, 0, 2);
  world.tokenize();
  const auto events = world.take<protocol::JobEvents>(world.client);
  ASSERT_EQ(events.size(), 2u);
  world.undeliverable(world.client, events[1], true);
  world.generate(world.worker, item, 2, 1);
  world.tokenize();
  EXPECT_TRUE(world.take<protocol::JobEvents>(world.client).empty());
  world.advance(milliseconds(300));
  const auto resumed = world.only<protocol::JobEvents>(world.client).events;
  EXPECT_EQ(resumed[0].text_offset, 1u);
  EXPECT_EQ(resumed[0].text.size(), 2u);
  world.generate(world.worker, item, 3, 5);
  world.tokenize();
  const auto finished = world.only<protocol::JobFinished>(world.client);
  world.undeliverable(world.client, finished, true);
  world.advance(milliseconds(300));
  EXPECT_EQ(world.only<protocol::JobFinished>(world.client).result, finished.result);
}

TEST(SchedulerFaults, CancelEndsQueuedAndRunningJobsOnce) {
  World world;
  world.add_services();
  const auto item = world.submit_and_dispatch(job_spec("running"));
  const JobId queued = world.submit(job_spec("queued"));
  world.send(world.client, protocol::Cancel{1, item.job});
  EXPECT_EQ(world.only<protocol::JobStatus>(world.client).result.state, JobState::kCancelled);
  EXPECT_EQ(world.only<protocol::Revoke>(world.worker).leases, std::vector<uint64_t>{item.lease});
  world.send(world.client, protocol::Cancel{2, queued});
  world.send(world.client, protocol::Cancel{3, queued});
  EXPECT_EQ(world.take<protocol::JobStatus>(world.client).size(), 2u);
  EXPECT_EQ(world.take<protocol::JobFinished>(world.client).size(), 2u);
  world.generate(world.worker, item, 0, 8);
  world.tokenize();
  EXPECT_TRUE(world.take<protocol::JobFinished>(world.client).empty());
  EXPECT_EQ(world.service->jobs().size(), 0u);
}

TEST(SchedulerFaults, JobsExpireWaitingOrRunning) {
  World world;
  world.add_services();
  auto spec = job_spec("a");
  spec.ttl_ms = 3'000;
  const auto item = world.submit_and_dispatch(spec);
  world.advance(milliseconds(2'900));
  EXPECT_TRUE(world.take<protocol::JobFinished>(world.client).empty());
  world.advance(milliseconds(200));
  const auto result = world.only<protocol::JobFinished>(world.client).result;
  EXPECT_EQ(result.state, JobState::kExpired);
  EXPECT_EQ(result.error, ErrorCode::kDeadlineExceeded);
  EXPECT_EQ(world.only<protocol::Revoke>(world.worker).leases[0], item.lease);
}

// The time runs out between two ticks, or while the process is stopped.

TEST(SchedulerFaults, AnExpiredJobIsNotDispatchedBeforeTheNextTick) {
  World world;
  world.add_tokenizer(world.tokenizer, 1);
  auto spec = job_spec("a");
  spec.ttl_ms = 50;
  world.submit(spec);
  world.clock.advance(milliseconds(60));
  world.tokenize();
  world.add_worker(world.worker, 2);
  EXPECT_TRUE(world.take<protocol::Dispatch>(world.worker).empty());
  EXPECT_EQ(world.only<protocol::JobFinished>(world.client).result.state, JobState::kExpired);
}

// The job may have ended while its acceptance still waits for the disk.

TEST(SchedulerFaults, ADuplicateOfAnEndedJobWaitsForItsAcceptance) {
  World world;
  world.add_services();
  const JobId job = world.submit(job_spec("a"));
  world.send(world.client, protocol::Cancel{1, job});
  world.sent.clear();
  world.send(world.client, protocol::Submit{2, false, {job_spec("a")}});
  ASSERT_EQ(world.sent.size(), 1u);
  EXPECT_EQ(std::get<protocol::SubmitReply>(world.sent[0].message).outcomes.at(0).job, job);
  EXPECT_GE(world.sent[0].after, 1u);
}

// What a second start of the scheduler finds.
journal::OpenJob open_job(protocol::JobSpec spec) {
  journal::OpenJob open;
  open.accepted.job = instance(9);
  open.accepted.order = 1;
  open.accepted.accepted_at_ms = FakeClock().wall_ms();
  open.accepted.spec = std::move(spec);
  return open;
}

journal::Recovery recovery_of(journal::OpenJob open) {
  journal::Recovery recovery;
  recovery.term = 2;
  recovery.next_order = 2;
  recovery.open.push_back(std::move(open));
  return recovery;
}

// The record of the last loss and that of the job's end may be in two commits, and the scheduler may end between them.

TEST(SchedulerFaults, ARecoveredJobWithoutAttemptsLeftIsDead) {
  journal::OpenJob open = open_job(job_spec("a"));
  open.attempts = open.accepted.spec.max_attempts;
  World world({}, nullptr, recovery_of(open));
  world.add_services();
  world.tokenize();
  EXPECT_TRUE(world.take<protocol::Dispatch>(world.worker).empty());
  world.send(world.client, protocol::Attach{1, open.accepted.job, 0});
  EXPECT_EQ(world.only<protocol::JobFinished>(world.client).result.state, JobState::kDead);
}

// All of its tokens may be there, but not the log-probabilities of its prompt.

TEST(SchedulerFaults, ARecoveredJobThatWantsPromptLogprobsStartsAgain) {
  journal::OpenJob open = open_job(job_spec("a", "once", 2));
  open.accepted.spec.prompt_logprobs = true;
  open.progress = {kFirstByteId + 'a', kFirstByteId + 'b'};
  World world({}, nullptr, recovery_of(open));
  world.add_services();
  world.tokenize();
  const auto item = world.dispatched(world.worker);
  EXPECT_TRUE(item.prompt_logprobs);
  EXPECT_EQ(item.tokens.size(), static_cast<size_t>(item.prompt_tokens));
}

TEST(SchedulerFaults, ATokenBeforeAllPromptLogprobsEndsTheLease) {
  World world;
  world.add_services();
  auto spec = job_spec("a");
  spec.prompt_logprobs = true;
  const auto item = world.submit_and_dispatch(spec);
  ASSERT_GT(item.prompt_tokens, 2);
  world.send(world.worker, protocol::PromptLogprobs{1, item.lease, 1, {-1.0f}});
  world.generate(world.worker, item, 0, 1);
  EXPECT_EQ(world.only<protocol::Revoke>(world.worker).leases.at(0), item.lease);
  const auto again = world.dispatched(world.worker);
  EXPECT_TRUE(again.prompt_logprobs);
  EXPECT_EQ(again.tokens.size(), static_cast<size_t>(again.prompt_tokens));
}

TEST(SchedulerFaults, DrainingFinishesWhatRunsAndStartsNothing) {
  World world;
  world.add_services();
  const auto item = world.submit_and_dispatch(job_spec("running", "once", 2));
  world.drain();
  EXPECT_FALSE(world.service->is_drained());
  world.send(world.client, protocol::Submit{5, true, {job_spec("late")}});
  EXPECT_EQ(world.only<protocol::Refused>(world.client).code, ErrorCode::kUnavailable);
  world.generate(world.worker, item, 0, 2);
  EXPECT_FALSE(world.service->is_drained());
  world.tokenize();
  EXPECT_TRUE(world.service->is_drained());
}

}  // namespace scheduler_faults_test
}  // namespace optserve::scheduler::testing

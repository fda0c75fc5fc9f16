// Settings of operators, groups and dead letters across restarts of the scheduler.
#include <gtest/gtest.h>

#include "scheduler/scheduler_test_world.h"
#include "simulation/nodes/manual_store.h"

namespace optserve::scheduler::testing {
namespace operator_restart_test {

using protocol::ControlAction;
using protocol::ControlScope;
using protocol::JobState;
using protocol::QueueMode;
using simulation::ManualStore;

class OperatorRestart : public ::testing::Test {
 protected:
  OperatorRestart() { start(); }
  // A new process; what the old one had appended is committed.
  void start() {
    store.sync();
    world.reset();
    crash();
  }
  // The same, but what was not committed is lost.
  void crash() {
    SchedulerOptions options;
    options.models = {"opt"};
    options.wall_ms = [] { return 1'000'000; };
    world = std::make_unique<World>(options, &store, store.crash());
    ++term;
  }
  void settle() {
    store.sync();
    world->advance(milliseconds(100));
  }
  void fail(const protocol::DispatchItem& item, const std::string& why) {
    world->send(world->worker, protocol::LeaseFailed{term, item.lease, ErrorCode::kInternal, why, true});
  }
  protocol::GroupStatus group(const std::string& name) {
    world->send(world->client, protocol::GetGroup{1, "", name, false});
    return world->only<protocol::GroupStatus>(world->client);
  }
  protocol::SystemStatus status() {
    world->send(world->client, protocol::GetStatus{1});
    return world->only<protocol::SystemStatus>(world->client);
  }

  ManualStore store;
  std::unique_ptr<World> world;
  uint64_t term = 0;
};

TEST_F(OperatorRestart, ModesHoldUntilTheyAreResumed) {
  world->send(world->client, protocol::Control{1, ControlAction::kPause, ControlScope::kQueue, ""});
  world->send(world->client, protocol::Control{2, ControlAction::kDrain, ControlScope::kModel, "opt"});
  world->add_worker(world->worker, 2);
  world->send(world->client, protocol::Control{3, ControlAction::kPause, ControlScope::kService, "worker"});
  start();
  EXPECT_EQ(status().mode, QueueMode::kPaused);
  EXPECT_EQ(status().models.at(0).mode, QueueMode::kDraining);
  world->add_worker(world->worker, 2);
  EXPECT_TRUE(status().services.at(0).paused);
  world->sent.clear();
  world->send(world->client, protocol::Control{1, ControlAction::kResume, ControlScope::kQueue, ""});
  world->send(world->client, protocol::Control{2, ControlAction::kResume, ControlScope::kModel, "opt"});
  world->send(world->client, protocol::Control{3, ControlAction::kResume, ControlScope::kService, "worker"});
  start();
  EXPECT_EQ(status().mode, QueueMode::kOpen);
  EXPECT_EQ(status().models.at(0).mode, QueueMode::kOpen);
}

TEST_F(OperatorRestart, AModeIsToldOnlyWhenItIsDurable) {
  world->send(world->client, protocol::Control{1, ControlAction::kPause, ControlScope::kQueue, ""});
  ASSERT_EQ(world->sent.size(), 1u);
  EXPECT_GT(world->sent[0].after, store.durable());
  crash();
  EXPECT_EQ(status().mode, QueueMode::kOpen);
}

TEST_F(OperatorRestart, GroupsAreCountedAnew) {
  world->add_services();
  auto spec = job_spec("done", "once", 1);
  spec.group = "g";
  const auto item = world->submit_and_dispatch(spec);
  world->generate(world->worker, item, 0, 1, term);
  world->tokenize();
  spec.key = "open";
  const JobId open = world->submit(spec);
  const auto before = group("g");
  EXPECT_EQ(before, (protocol::GroupStatus{1, 1, 1, 0, 0, 0, 0}));
  start();
  EXPECT_EQ(group("g"), before);
  world->send(world->client, protocol::GetGroup{2, "", "g", true});
  for (const auto& message : world->sent) {
    if (std::holds_alternative<protocol::GroupStatus>(message.message)) {
      EXPECT_GT(message.after, store.durable());
    }
  }
  EXPECT_EQ(world->only<protocol::GroupStatus>(world->client).cancelled, 1);
  start();
  EXPECT_EQ(group("g"), (protocol::GroupStatus{1, 0, 1, 0, 1, 0, 0}));
  EXPECT_EQ(world->service->jobs().find(open), nullptr);
}

TEST_F(OperatorRestart, LossesAndRequeuesSurvive) {
  world->add_services();
  auto spec = job_spec("poison");
  spec.max_attempts = 2;
  const auto first = world->submit_and_dispatch(spec);
  fail(first, "first reason");
  start();
  world->add_services();
  world->tokenize();
  const auto second = world->dispatched(world->worker);
  fail(second, "second reason");
  settle();
  start();
  world->send(world->client, protocol::GetJob{1, first.job});
  settle();
  const auto dead = world->only<protocol::JobStatus>(world->client).result;
  EXPECT_EQ(dead.state, JobState::kDead);
  EXPECT_EQ(dead.losses, (std::vector<std::string>{"first reason", "second reason"}));
  EXPECT_EQ(dead.attempts, 2);
  EXPECT_EQ(store.fenced(), 0u);

  world->send(world->client, protocol::Requeue{3, first.job});
  settle();
  EXPECT_EQ(world->only<protocol::JobStatus>(world->client).result.state, JobState::kQueued);
  start();
  EXPECT_EQ(world->service->jobs().size(), 1u);
  EXPECT_TRUE(world->submit_refused(spec).duplicate);
  world->add_services();
  world->tokenize();
  const auto again = world->dispatched(world->worker);
  EXPECT_EQ(again.job, first.job);
  world->generate(world->worker, again, 0, 8, term);
  world->tokenize();
  const auto result = world->only<protocol::JobFinished>(world->client).result;
  EXPECT_EQ(result.state, JobState::kSucceeded);
  EXPECT_EQ(result.attempts, 1);
  store.sync();
  EXPECT_EQ(store.fenced(), 0u);
  EXPECT_EQ(store.second_terminals(), 0u);
}

TEST_F(OperatorRestart, ARequeueThatWasNotCommittedLeavesTheJobDead) {
  world->add_services();
  auto spec = job_spec("poison");
  spec.max_attempts = 1;
  const auto item = world->submit_and_dispatch(spec);
  fail(item, "why");
  settle();
  world->send(world->client, protocol::Requeue{3, item.job});
  world->advance(milliseconds(100));
  EXPECT_EQ(world->service->jobs().size(), 1u);
  crash();
  EXPECT_EQ(world->service->jobs().size(), 0u);
  EXPECT_EQ(store.results().at(item.job).result.state, JobState::kDead);
}

TEST_F(OperatorRestart, ADeadJobIsKeptWithItsSpecAndAResultUnderItsLease) {
  world->add_services();
  auto spec = job_spec("poison");
  spec.max_attempts = 1, spec.result_ttl_ms = 0;
  const auto item = world->submit_and_dispatch(spec);
  fail(item, "why");
  auto good = job_spec("good", "once", 1);
  const auto worked = world->submit_and_dispatch(good);
  world->generate(world->worker, worked, 0, 1, term);
  world->tokenize();
  const JobId cancelled = world->submit(job_spec("cancelled"));
  world->send(world->client, protocol::Cancel{1, cancelled});
  settle();
  const auto& dead = store.results().at(item.job);
  EXPECT_EQ(dead.expires_at_ms, store.time_ms(world->clock.now() - milliseconds(100)) + 7LL * 24 * 3'600'000);
  EXPECT_EQ(protocol::decode_job_spec(dead.encoded_spec).value(), spec);
  EXPECT_EQ(dead.token, LeaseToken{});
  EXPECT_EQ(dead.model, "opt");
  EXPECT_EQ(dead.accepted_wall_ms, 1'000'000);
  EXPECT_EQ(store.results().at(worked.job).token, (LeaseToken{term, worked.lease}));
  EXPECT_TRUE(store.results().at(worked.job).encoded_spec.empty());
  EXPECT_EQ(store.results().at(cancelled).token.number, 0u);
}

}  // namespace operator_restart_test
}  // namespace optserve::scheduler::testing

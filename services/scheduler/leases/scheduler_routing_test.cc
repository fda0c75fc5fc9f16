// Which group a job goes to, and when a group is given up.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "scheduler/scheduler_test_world.h"

namespace optserve::scheduler::testing {
namespace scheduler_routing_test {

TEST(SchedulerRouting, JobsGoToTheGroupsByTheirSpeed) {
  World world;
  world.add_services();
  world.add_worker(world.worker, 2, 100);
  world.add_worker(world.worker2, 3, 100);
  std::map<World::Peer, std::map<uint64_t, uint32_t>> leases;  // with positions
  size_t jobs = 0;
  std::map<World::Peer, size_t> given;
  const auto collect = [&] {
    for (const auto& worker : {world.worker, world.worker2}) {
      for (const auto& message : world.take<protocol::Dispatch>(worker)) {
        for (const auto& item : message.items) leases[worker][item.lease] = 0, ++given[worker];
      }
    }
  };
  const auto step = [&](const World::Peer& worker) {
    protocol::Tokens message;
    message.term = 1;
    for (auto& [lease, position] : leases[worker]) {
      message.leases.push_back(lease);
      message.positions.push_back(position);
      message.tokens.push_back(kFirstByteId + 'a');
      message.finished.push_back(position++ == 19 ? 2 : 0);
    }
    std::erase_if(leases[worker], [](const auto& lease) { return lease.second == 20; });
    world.send(worker, std::move(message));
    collect();
  };
  for (int tick = 0; tick < 300; ++tick) {
    // More than fits at first, so that both are measured; then less.
    while (world.service->jobs().size() < (tick < 150 ? 300u : 60u)) {
      world.send(world.client, protocol::Submit{1, false, {ids_spec(std::to_string(++jobs), "", 20)}});
    }
    collect();
    if (tick == 240) given.clear();  // what came before the change has ended
    step(world.worker);
    if (tick % 4 == 0) step(world.worker2);  // a quarter as fast
    world.heartbeat(world.worker2, 3);
    world.heartbeat(world.tokenizer, 1);
    world.tokenize();
    world.advance(milliseconds(100));
    collect();
    world.sent.clear();
  }
  EXPECT_GT(given[world.worker], 5 * given[world.worker2]);
  EXPECT_GT(given[world.worker2], 0u);
}

TEST(SchedulerRouting, ARetryWaitsForAnElsewhereWhileOthersPass) {
  World world;
  world.add_services();
  world.add_worker(world.worker, 2, 1);
  world.add_worker(world.worker2, 3, 1);
  world.submit(ids_spec("a"));
  world.submit(ids_spec("b"));
  const auto first = world.dispatched(world.worker);
  world.dispatched(world.worker2);
  world.submit(ids_spec("c"));
  world.send(world.worker, protocol::LeaseFailed{1, first.lease, ErrorCode::kInternal, "oom", true});
  const auto next = world.dispatched(world.worker);
  EXPECT_NE(next.job, first.job);
  world.send(world.worker2, protocol::Goodbye{instance(3)});  // no elsewhere is left
  world.send(world.worker, protocol::LeaseFailed{1, next.lease, ErrorCode::kInternal, "bad", false});
  EXPECT_EQ(world.dispatched(world.worker).job, first.job);
}

TEST(SchedulerRouting, AWorkerGetsNoMoreThanItWantsFromThisScheduler) {
  World world;
  world.add_services();
  protocol::Heartbeat beat{instance(2), 1, 0, 0, false, 2};
  world.send(world.worker, beat);
  for (int i = 0; i < 5; ++i) world.submit(ids_spec(std::to_string(i)));
  size_t leased = 0;
  const auto count = [&] {
    for (const auto& message : world.take<protocol::Dispatch>(world.worker)) leased += message.items.size();
  };
  count();
  EXPECT_EQ(leased, 2u);
  world.sent.clear();
  beat.number = 9;
  world.send(world.worker, beat);
  EXPECT_EQ(world.only<protocol::Pong>(world.worker), (protocol::Pong{9, 1, 3}));
  world.send(world.worker, protocol::Ping{4});
  EXPECT_EQ(world.only<protocol::Pong>(world.worker), (protocol::Pong{4, 1, 3}));
  beat.capacity = 0;
  world.send(world.worker, beat);
  count();
  EXPECT_EQ(leased, 5u);
}

TEST(SchedulerRouting, APromptWithTheSameBeginningGoesWhereItWent) {
  for (const bool affinity : {true, false}) {
    SchedulerOptions options;
    options.prefix_affinity = affinity;
    World world(options);
    world.add_services();
    world.add_worker(world.worker2, 3);
    const auto spec_of = [](const std::string& key, TokenId beginning) {
      auto spec = ids_spec(key);
      spec.prompt_ids.assign(80, beginning);
      return spec;
    };
    world.submit(spec_of("a", 10));
    const bool is_first = !world.take<protocol::Dispatch>(world.worker).empty();
    const World::Peer& holder = is_first ? world.worker : world.worker2;
    world.submit(spec_of("other", 11));
    world.submit(spec_of("b", 10));
    world.submit(spec_of("c", 10));
    size_t there = 0;
    for (const auto& message : world.take<protocol::Dispatch>(holder)) {
      for (const auto& item : message.items) there += item.tokens[0] == 10 ? 1 : 0;
    }
    EXPECT_EQ(there, affinity ? 2u : 1u);
  }
}

TEST(SchedulerRouting, APausedWorkerGetsWorkAgainAfterItsPause) {
  World world;
  world.add_services();
  world.submit(ids_spec("a"));
  world.undeliverable(world.worker, world.only<protocol::Dispatch>(world.worker), true);
  EXPECT_TRUE(world.take<protocol::Dispatch>(world.worker).empty());
  world.advance(milliseconds(600));
  world.dispatched(world.worker);
}

TEST(SchedulerLeases, TheFirstStepHasTimeThenTheBoundFollowsTheSteps) {
  World world;
  world.add_services();
  world.submit(ids_spec("a"));
  const auto beat = [&](uint64_t steps, int times) {
    for (int i = 0; i < times; ++i) {
      world.advance(seconds(1));
      world.heartbeat(world.worker, 2, steps);
      world.heartbeat(world.tokenizer, 1);
    }
    return world.service->jobs().count(Stage::kLeased) == 1;
  };
  EXPECT_TRUE(beat(100, 110));  // loads its weights
  EXPECT_TRUE(beat(101, 1));
  EXPECT_TRUE(beat(101, 58));  // 10 times the slowest step, but no more than 60 s
  EXPECT_FALSE(beat(101, 3));
}

TEST(SchedulerLeases, AFastWorkersHangIsFoundSoonAndItsJobsRunElsewhere) {
  World world;
  world.add_services();
  world.submit(ids_spec("a", "", 100));
  const auto item = world.dispatched(world.worker);
  world.add_worker(world.worker2, 3);
  for (uint32_t position = 0; position < 20; ++position) {
    send_tokens(world, world.worker, {item.lease}, position);
    world.tokenize();
    world.advance(milliseconds(100));
  }
  world.sent.clear();
  int passed = 0;
  for (; world.take<protocol::Dispatch>(world.worker2).empty() && passed < 60; ++passed) {
    world.advance(seconds(1));
    world.heartbeat(world.worker, 2, 7);  // it lives, but nothing moves
    world.heartbeat(world.worker2, 3);
    world.heartbeat(world.tokenizer, 1);
    world.tokenize();
  }
  EXPECT_LE(passed, 15);
  EXPECT_GE(passed, 9);
}

}  // namespace scheduler_routing_test
}  // namespace optserve::scheduler::testing

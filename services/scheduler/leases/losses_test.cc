// A connection that ends tells of the death of a process at once, or of nothing but the network.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "scheduler/scheduler_test_world.h"

namespace optserve::scheduler::testing {
namespace losses_test {

using protocol::JobState;
using ::testing::HasSubstr;

void finish(World& world, const World::Peer& worker, const protocol::DispatchItem& item) {
  world.generate(worker, item, 0, 8);
  world.tokenize();
}

TEST(Losses, TheJobsOfAWorkerWhoseConnectionEndedRunElsewhereAtOnce) {
  World world;
  world.add_services();
  const auto item = world.submit_and_dispatch(job_spec("a"));
  world.add_worker(world.worker2, 3);
  world.end_connection(world.worker);
  world.advance(milliseconds(200));
  EXPECT_TRUE(world.take<protocol::Dispatch>(world.worker2).empty()) << "it may come back";
  world.advance(milliseconds(200));
  const auto retry = world.dispatched(world.worker2);
  EXPECT_EQ(retry.job, item.job);
  finish(world, world.worker2, retry);
  const auto result = world.only<protocol::JobFinished>(world.client).result;
  EXPECT_EQ(result.state, JobState::kSucceeded);
  EXPECT_EQ(result.attempts, 2);
  EXPECT_THAT(world.metrics(), HasSubstr("optserve_services_lost_total{service=\"worker\"} 1"));
}

TEST(Losses, AWorkerThatComesBackAtOnceCostsNoAttempt) {
  World world;
  world.add_services();
  const auto item = world.submit_and_dispatch(job_spec("a"));
  world.end_connection(world.worker);
  world.advance(milliseconds(200));
  const World::Peer again{1, "worker-again"};
  world.add_worker(again, 2);
  EXPECT_EQ(world.only<protocol::Revoke>(again).leases, std::vector<uint64_t>{item.lease});
  world.advance(milliseconds(400));
  finish(world, again, world.dispatched(again));
  EXPECT_EQ(world.only<protocol::JobFinished>(world.client).result.attempts, 1);
  EXPECT_THAT(world.metrics(), HasSubstr("optserve_services_lost_total{service=\"worker\"} 0"));
}

TEST(Losses, AnEndedConnectionGetsNothingMore) {
  World world;
  world.add_services();
  world.end_connection(world.worker);
  world.submit(job_spec("a"));
  world.tokenize();
  EXPECT_TRUE(world.take<protocol::Dispatch>(world.worker).empty());
  world.add_worker(world.worker2, 3);
  world.dispatched(world.worker2);
}

// What could not be delivered says the same as the end of the connection.
TEST(Losses, AnUndeliverableMessageIsAnEndedConnection) {
  World world;
  world.add_services();
  world.submit_and_dispatch(job_spec("a"));
  world.undeliverable(world.worker, protocol::Pong{}, false);
  world.advance(milliseconds(200));
  EXPECT_EQ(world.service->jobs().count(Stage::kLeased), 1u);
  world.advance(milliseconds(200));
  EXPECT_EQ(world.service->jobs().count(Stage::kLeased), 0u);
}

TEST(Losses, AConnectionAloneEndsNoJobWhoseLastAttemptItIs) {
  for (const bool comes_back : {false, true}) {
    World world;
    world.add_services();
    auto last = job_spec("a");
    last.max_attempts = 1;
    world.submit_and_dispatch(last);
    const auto other = world.submit_and_dispatch(job_spec("b"));
    world.add_worker(world.worker2, 3);
    world.end_connection(world.worker);
    world.advance(seconds(1));
    EXPECT_EQ(world.dispatched(world.worker2).job, other.job);
    EXPECT_EQ(world.service->jobs().count(Stage::kLeased), 2u);
    for (int i = 0; i < 3; ++i) {
      world.heartbeat(world.worker2, 3);
      world.heartbeat(world.tokenizer, 1);
      world.advance(seconds(1));
    }
    EXPECT_TRUE(world.take<protocol::JobFinished>(world.client).empty());
    if (comes_back) {
      world.add_worker({1, "worker-again"}, 2);
      EXPECT_EQ(world.service->jobs().count(Stage::kLeased), 2u);
    } else {
      world.advance(seconds(1));
      EXPECT_EQ(world.only<protocol::JobFinished>(world.client).result.state, JobState::kDead);
    }
  }
}

// ZeroMQ ends a connection on which nothing came for 3 s. That says less than a process that has just been heard.
TEST(Losses, AConnectionThatEndsOfSilenceSaysNothingNew) {
  World world;
  world.add_services();
  world.submit_and_dispatch(job_spec("a"));
  world.advance(seconds(3));
  world.end_connection(world.worker);
  world.advance(milliseconds(1'800));
  EXPECT_EQ(world.service->jobs().count(Stage::kLeased), 1u);
  world.advance(milliseconds(300));
  EXPECT_EQ(world.service->jobs().count(Stage::kLeased), 0u);
}

TEST(Losses, AGoodbyeThatIsReadAfterTheEndIsNoLoss) {
  World world;
  world.add_services();
  world.end_connection(world.worker);
  world.send(world.worker, protocol::Goodbye{instance(2)});
  world.advance(milliseconds(500));
  EXPECT_EQ(world.service->services().size(), 1u);
  EXPECT_THAT(world.metrics(), HasSubstr("optserve_services_lost_total{service=\"worker\"} 0"));
}

TEST(Losses, TheQuestionsOfATokenizerWhoseConnectionEndedGoToAnother) {
  World world;
  world.add_services();
  world.submit(job_spec("a"));
  world.only<protocol::Encode>(world.tokenizer);
  const World::Peer other{1, "tokenizer2"};
  world.add_tokenizer(other, 4);
  world.end_connection(world.tokenizer);
  world.advance(milliseconds(400));
  EXPECT_EQ(world.only<protocol::Encode>(other).items.size(), 1u);
}

TEST(Losses, AClientWhoseConnectionEndedFollowsNothing) {
  World world;
  world.add_services();
  auto spec = job_spec("a");
  spec.on_disconnect = protocol::OnDisconnect::kCancel;
  world.submit_and_dispatch(spec);
  world.end_connection(world.client);
  EXPECT_THAT(world.metrics(), HasSubstr("optserve_clients_lost_total 1"));
  for (int i = 0; i < 16; ++i) {
    world.heartbeat(world.worker, 2, static_cast<uint64_t>(i));
    world.advance(seconds(1));
  }
  EXPECT_EQ(world.service->jobs().size(), 0u);
}

}  // namespace losses_test
}  // namespace optserve::scheduler::testing

// Jobs that are cancelled when nobody follows them any more.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "scheduler/scheduler_test_world.h"

namespace optserve::scheduler::testing {
namespace followers_test {

using protocol::JobState;
using ::testing::HasSubstr;

protocol::JobSpec leavable(const std::string& key) {
  auto spec = job_spec(key);
  spec.on_disconnect = protocol::OnDisconnect::kCancel;
  return spec;
}

// The peer has vanished: whatever is sent to it comes back.
void vanish(World& world, const World::Peer& peer) {
  for (int i = 0; i < 50; ++i) {
    world.advance(milliseconds(100));
    bool any = false;
    for (auto& message : world.take<protocol::JobEvents>(peer)) {
      any = true, world.undeliverable(peer, std::move(message), false);
    }
    for (auto& message : world.take<protocol::Ping>(peer)) any = true, world.undeliverable(peer, message, false);
    if (any) return;
  }
  ADD_FAILURE() << "nothing was sent to the peer";
}

JobState state_of(World& world, const JobId& job) {
  const World::Peer asker{0, "asker"};
  world.send(asker, protocol::GetJob{1, job});
  return world.only<protocol::JobStatus>(asker).result.state;
}

TEST(Followers, AJobInTheQueueShowsThatItLives) {
  SchedulerOptions options;
  options.models = {"opt"};
  World waiting(options);  // without services
  const JobId job = waiting.submit(leavable("a"));
  waiting.advance(seconds(10));
  const auto events = waiting.take<protocol::JobEvents>(waiting.client);
  ASSERT_GE(events.size(), 3u);
  EXPECT_EQ(events[0].events.at(0).job, job);
  EXPECT_EQ(events[0].events.at(0).state, JobState::kQueued);
  EXPECT_EQ(events[0].events.at(0).text, "");
}

class LeftJob : public ::testing::Test {
 protected:
  static SchedulerOptions options() {
    SchedulerOptions options;
    options.models = {"opt"};
    return options;
  }
  World world{options()};
};

TEST_F(LeftJob, IsCancelledAfterTheGraceTime) {
  const JobId job = world.submit(leavable("a"));
  vanish(world, world.client);
  world.advance(seconds(14));
  EXPECT_EQ(state_of(world, job), JobState::kQueued);
  world.advance(seconds(2));
  const World::Peer asker{0, "asker"};
  world.send(asker, protocol::GetJob{1, job});
  const auto result = world.only<protocol::JobStatus>(asker).result;
  EXPECT_EQ(result.state, JobState::kCancelled);
  EXPECT_THAT(result.message, HasSubstr("nobody has followed it for 15 s"));
}

TEST_F(LeftJob, GoesOnWhenSomebodyComesBack) {
  const JobId job = world.submit(leavable("a"));
  vanish(world, world.client);
  world.advance(seconds(10));
  const World::Peer again{0, "again"};
  world.send(again, protocol::Attach{1, job, 0});
  world.advance(seconds(30));
  EXPECT_EQ(state_of(world, job), JobState::kQueued);
  vanish(world, again);
  world.advance(seconds(16));
  EXPECT_EQ(state_of(world, job), JobState::kCancelled);
}

TEST_F(LeftJob, GoesOnWhileAnotherFollows) {
  const JobId job = world.submit(leavable("a"));
  world.send({0, "other"}, protocol::Attach{1, job, 0});
  vanish(world, world.client);
  world.advance(seconds(30));
  EXPECT_EQ(state_of(world, job), JobState::kQueued);
}

TEST_F(LeftJob, WithoutAFollowerFromTheStartIsNotLeft) {
  const JobId job = world.submit(leavable("a"), false);
  world.advance(seconds(60));
  EXPECT_EQ(state_of(world, job), JobState::kQueued);
}

TEST_F(LeftJob, ThatDidNotAskForItGoesOn) {
  const JobId job = world.submit(job_spec("a"));
  world.undeliverable(world.client, protocol::Pong{}, false);
  world.advance(seconds(60));
  EXPECT_EQ(state_of(world, job), JobState::kQueued);
}

TEST_F(LeftJob, IsNoticedWhenTheClientHasNoCredit) {
  world.send(world.client, protocol::Credit{0, 1});
  const JobId job = world.submit(leavable("a"));
  for (int i = 0; i < 100; ++i) world.submit(leavable("k" + std::to_string(i)));
  world.advance(seconds(4));  // their signs of life use the window up
  world.sent.clear();
  vanish(world, world.client);
  world.advance(seconds(16));
  EXPECT_EQ(state_of(world, job), JobState::kCancelled);
}

}  // namespace followers_test
}  // namespace optserve::scheduler::testing

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

// The peer has vanished: whatever is sent to it is returned as undeliverable.
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

TEST(Followers, OneTooManyIsToldSoAndHearsNothing) {
  SchedulerOptions options;
  options.subscriptions_per_job_max = 2;
  World world(options);
  world.add_services();
  const JobId job = world.submit(job_spec("k"));
  const World::Peer second{0, "second"}, third{0, "third"};
  world.send(second, protocol::Submit{1, true, {job_spec("k")}});
  EXPECT_FALSE(world.only<protocol::SubmitReply>(second).outcomes.at(0).unfollowed);
  world.send(third, protocol::Submit{1, true, {job_spec("k")}});
  const auto outcome = world.only<protocol::SubmitReply>(third).outcomes.at(0);
  EXPECT_EQ(outcome.job, job);
  EXPECT_TRUE(outcome.unfollowed);
  world.send(third, protocol::Attach{2, job});
  EXPECT_EQ(world.only<protocol::Refused>(third).code, ErrorCode::kBusy);
  world.send(third, protocol::Submit{3, false, {job_spec("k")}});
  EXPECT_FALSE(world.only<protocol::SubmitReply>(third).outcomes.at(0).unfollowed) << "it did not want a stream";
}

// After a restart of the scheduler a GPU may compute another text than the one that was streamed.
TEST(Followers, WhoHasAnotherTextIsToldToBeginAnew) {
  World world;
  world.add_services();
  const auto item = world.submit_and_dispatch(job_spec("k", "once", 8));
  world.generate(world.worker, item, 0, 4);
  world.tokenize();
  const std::string text = world.streamed_text();
  ASSERT_GT(text.size(), 1u);
  const std::string other_text(text.size(), '?');
  const World::Peer same{0, "same"}, other{0, "other"}, longer{0, "longer"}, old{0, "old"};
  world.send(same, protocol::Attach{1, item.job, text.size(), protocol::text_digest(text)});
  world.send(other, protocol::Attach{1, item.job, text.size(), protocol::text_digest(other_text)});
  world.send(longer, protocol::Attach{1, item.job, text.size() + 1, protocol::text_digest(other_text + "?")});
  world.send(old, protocol::Attach{1, item.job, text.size()});  // of a program that tells no digest
  world.flush();
  for (const World::Peer& peer : {same, longer, old}) {
    EXPECT_TRUE(world.take<protocol::JobEvents>(peer).empty()) << peer.route;
  }
  auto anew = world.only<protocol::JobEvents>(other);
  EXPECT_TRUE(anew.events.at(0).restarted);
  EXPECT_EQ(anew.events.at(0).text_offset, 0u);
  EXPECT_EQ(anew.events.at(0).text, text);
  world.undeliverable(other, anew, true);  // it has to be told again
  world.advance(seconds(1));
  anew = world.only<protocol::JobEvents>(other);
  EXPECT_TRUE(anew.events.at(0).restarted);
  EXPECT_EQ(anew.events.at(0).text, text);

  world.generate(world.worker, item, 4, 4);
  world.tokenize();
  const std::string result = world.only<protocol::JobFinished>(same).result.text;
  const auto received = [&](const World::Peer& peer, std::string has) {
    for (const auto& message : world.take<protocol::JobEvents>(peer)) {
      for (const auto& event : message.events) {
        if (event.restarted) has.clear();
        EXPECT_EQ(event.text_offset, has.size()) << peer.route;
        has += event.text;
      }
    }
    return has;
  };
  EXPECT_EQ(received(same, text), result);
  EXPECT_EQ(received(other, text), result);
  EXPECT_EQ(received(longer, other_text + "?"), result);
  EXPECT_EQ(received(old, text), result);
}

}  // namespace followers_test
}  // namespace optserve::scheduler::testing

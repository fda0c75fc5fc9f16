// Streams with credit: what a client gets, and what it costs others when it takes nothing.
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "scheduler/scheduler_test_world.h"

namespace optserve::scheduler::testing {
namespace credits_test {

constexpr uint64_t kWindow = limits::kStreamWindowMin;

// Counts how much of its streams a connection was sent, and puts the pieces together.
struct Receiver {
  World& world;
  World::Peer peer;
  uint64_t received = 0;
  std::map<JobId, std::string> texts{};
  std::map<JobId, protocol::JobResult> results{};

  // Takes what was sent; returns its cost.
  uint64_t take() {
    uint64_t cost = 0;
    for (const auto& message : world.take<protocol::JobEvents>(peer)) {
      for (const auto& event : message.events) {
        std::string& text = texts[event.job];
        EXPECT_EQ(event.text_offset, text.size()) << "a gap or a repetition";
        text += event.text;
        cost += protocol::stream_cost(event);
      }
    }
    for (auto& message : world.take<protocol::JobFinished>(peer)) {
      cost += protocol::stream_cost(message.result);
      EXPECT_TRUE(results.emplace(message.result.job, message.result).second) << "told twice";
    }
    received += cost;
    return cost;
  }
  void credit(uint64_t consumed, uint64_t window = kWindow) { world.send(peer, protocol::Credit{consumed, window}); }
};

protocol::JobSpec long_job(const std::string& key, int32_t tokens) {
  auto spec = job_spec(key, "once", tokens);
  spec.sampling.ignore_eos = true;
  return spec;
}

// Tokens of one letter each, without an end.
void letters(World& world, const protocol::DispatchItem& item, uint32_t from, uint32_t count) {
  for (uint32_t i = from; i < from + count; ++i) {
    world.send(world.worker, protocol::Tokens{1, {item.lease}, {i}, {kFirstByteId + 'a'}, {0}});
    world.tokenize();
  }
}

TEST(CreditWindow, CountsFromTheFirstCreditAndIgnoresWhatGoesBackwards) {
  CreditWindow window;
  EXPECT_EQ(window.room(), UINT64_MAX);
  window.spend(5'000);  // before the first Credit nothing counts
  EXPECT_TRUE(window.grant(7'000, 10'000));
  EXPECT_EQ(window.room(), 10'000u);
  window.spend(9'000);
  EXPECT_EQ(window.room(), 1'000u);
  EXPECT_FALSE(window.grant(6'999, 100'000));
  EXPECT_EQ(window.room(), 1'000u);
  EXPECT_TRUE(window.grant(8'000, 10'000));
  EXPECT_EQ(window.room(), 2'000u);
  window.take_back(500);
  EXPECT_EQ(window.room(), 2'500u);
}

TEST(CreditWindow, IsClampedAndNotWidenedByWhatWasTakenElsewhere) {
  CreditWindow window;
  window.grant(0, 1);
  EXPECT_EQ(window.room(), limits::kStreamWindowMin);
  window.grant(0, UINT64_MAX);
  EXPECT_EQ(window.room(), limits::kStreamWindowMax);
  window.grant(UINT64_MAX, UINT64_MAX);  // more than this connection was ever sent
  EXPECT_EQ(window.room(), limits::kStreamWindowMax);
  window.spend(limits::kStreamWindowMax);
  EXPECT_EQ(window.room(), 0u);
  window.spend(1 << 20);  // one that is larger than the window
  EXPECT_EQ(window.room(), 0u);
}

TEST(Credits, AClientGetsAWindowAndGoesOnWhereItStopped) {
  World world;
  world.add_services();
  Receiver receiver{world, world.client};
  receiver.credit(0);
  const auto item = world.submit_and_dispatch(long_job("a", 400));
  letters(world, item, 0, 200);
  receiver.take();
  EXPECT_LT(receiver.texts[item.job].size(), 200u);
  EXPECT_GE(receiver.received, kWindow);
  EXPECT_LT(receiver.received, kWindow + 128);
  world.advance(seconds(2));
  EXPECT_EQ(receiver.take(), 0u);
  receiver.credit(receiver.received);
  EXPECT_GT(receiver.take(), 0u);  // what has gathered comes in one piece
  EXPECT_EQ(receiver.texts[item.job].size(), 200u);
  EXPECT_EQ(receiver.texts[item.job], std::string(200, 'a'));
}

TEST(Credits, OtherClientsAreNotHeldUp) {
  World world;
  world.add_services();
  Receiver stuck{world, world.client}, other{world, {0, "other"}};
  stuck.credit(0);
  const auto item = world.submit_and_dispatch(long_job("a", 400));
  world.send(other.peer, protocol::Attach{1, item.job, 0});
  letters(world, item, 0, 300);
  stuck.take();
  EXPECT_LT(stuck.received, kWindow + 128);
  other.take();
  EXPECT_EQ(other.texts[item.job].size(), 300u);
}

TEST(Credits, ResultsWaitAsIdsAndComeWhenThereIsRoom) {
  SchedulerOptions options;
  options.recent_bytes_max = 1;  // results come back from the store
  World world(options);
  world.add_services();
  Receiver receiver{world, world.client};
  receiver.credit(100);
  std::vector<JobId> jobs;
  for (int i = 0; i < 40; ++i) {
    const auto item = world.submit_and_dispatch(long_job("k" + std::to_string(i), 1));
    world.generate(world.worker, item, 0, 1);
    world.tokenize();
    jobs.push_back(item.job);
  }
  receiver.take();
  EXPECT_LT(receiver.results.size(), 20u);
  EXPECT_LT(receiver.received, kWindow + 400);
  for (int i = 0; i < 10 && receiver.results.size() < jobs.size(); ++i) {
    receiver.credit(100 + receiver.received);
    world.advance(milliseconds(100));  // the store answers
    EXPECT_LT(receiver.take(), kWindow + 400);
  }
  EXPECT_EQ(receiver.results.size(), jobs.size());
}

TEST(Credits, AResultLargerThanTheWindowGetsThrough) {
  const SchedulerOptions options;
  ClientStreams streams(options);
  const World::Peer peer{0, "client"};
  transport::Outbox out;
  const auto send_large = [&] {
    auto result = std::make_shared<protocol::JobResult>();
    result->job = JobId::random();
    result->text.assign(2 * kWindow, 'x');
    streams.send_result(streams.client(peer), result, 0);
    streams.flush(0, Instant{}, out);
    return std::pair(result->job, out.take().size());
  };
  ASSERT_TRUE(streams.on_credit(peer, {0, kWindow}, Instant{}));
  EXPECT_EQ(send_large().second, 1u);
  const auto [second, sent] = send_large();
  EXPECT_EQ(sent, 0u);
  EXPECT_TRUE(streams.take_resumed(Instant{}).empty());
  ASSERT_TRUE(streams.on_credit(peer, {2 * kWindow + 256, kWindow}, Instant{}));
  const auto resumed = streams.take_resumed(Instant{});
  ASSERT_EQ(resumed.size(), 1u);
  EXPECT_EQ(resumed[0].jobs, std::vector<JobId>{second});
}

TEST(Credits, WhatWasNotHandedOverIsTakenBack) {
  World world;
  world.add_services();
  Receiver receiver{world, world.client};
  receiver.credit(0);
  const auto item = world.submit_and_dispatch(long_job("a", 400));
  for (uint32_t i = 0; i < 150; ++i) {
    letters(world, item, i, 1);
    for (auto& message : world.take<protocol::JobEvents>(world.client)) {
      world.undeliverable(world.client, std::move(message), true);
    }
    world.advance(milliseconds(300));
    for (auto& message : world.take<protocol::JobEvents>(world.client)) {
      world.undeliverable(world.client, std::move(message), true);
    }
    world.heartbeat(world.worker, 2);
    world.heartbeat(world.tokenizer, 1);
  }
  world.advance(milliseconds(300));
  receiver.take();
  EXPECT_EQ(receiver.texts[item.job].size(), 150u);
}

TEST(Credits, ManyJobsShareAWindowInTurn) {
  World world;
  world.add_services();
  Receiver receiver{world, world.client};
  receiver.credit(0);
  std::vector<protocol::DispatchItem> items;
  for (int i = 0; i < 8; ++i) items.push_back(world.submit_and_dispatch(long_job("k" + std::to_string(i), 400)));
  for (uint32_t i = 0; i < 300; ++i) {
    for (const auto& item : items) letters(world, item, i, 1);
  }
  receiver.take();
  for (int i = 0; i < 3; ++i) {
    receiver.credit(receiver.received);
    receiver.take();
  }
  for (const auto& item : items) EXPECT_EQ(receiver.texts[item.job].size(), 300u);
}

TEST(Credits, AWindowOutlivesThePausesBetweenJobs) {
  World world;
  world.add_services();
  Receiver receiver{world, world.client};
  receiver.credit(0);
  world.advance(seconds(25));
  const auto check_window = [&](const std::string& key) {
    world.add_services();
    const auto item = world.submit_and_dispatch(long_job(key, 400));
    letters(world, item, 0, 200);
    return receiver.take();
  };
  EXPECT_LT(check_window("a"), kWindow + 128);
}

TEST(Credits, EventsTellTheState) {
  World world;
  world.add_services();
  const auto item = world.submit_and_dispatch(long_job("a", 4));
  letters(world, item, 0, 1);
  EXPECT_EQ(world.only<protocol::JobEvents>(world.client).events.at(0).state, protocol::JobState::kRunning);
}

// Random jobs, windows and reading speeds: never more in flight than the window and one item, and every byte once.
TEST(Credits, HoldForRandomClients) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  World world;
  world.add_tokenizer(world.tokenizer, 1);
  world.add_worker(world.worker, 2, 64);
  world.sent.clear();
  std::vector<Receiver> receivers;
  for (int i = 0; i < 3; ++i) receivers.push_back({world, {0, "client-" + std::to_string(i)}});
  std::vector<uint64_t> consumed(receivers.size()), windows(receivers.size());
  std::vector<protocol::DispatchItem> items;
  const auto take_some = [&](size_t i, bool all) {
    receivers[i].take();
    // Here only a result, because of its envelope, can be larger than a window.
    EXPECT_LE(receivers[i].received - consumed[i], windows[i] + 1'024);
    if (!all && random() % 3 != 0) return;
    consumed[i] += all ? receivers[i].received - consumed[i] : random() % (receivers[i].received - consumed[i] + 1);
    receivers[i].credit(consumed[i], windows[i]);
  };
  for (size_t i = 0; i < receivers.size(); ++i) {
    windows[i] = kWindow + random() % 5'000;
    receivers[i].credit(0, windows[i]);
  }
  for (int k = 0; k < 30; ++k) {
    items.push_back(
        world.submit_and_dispatch(long_job("k" + std::to_string(k), 20 + static_cast<int32_t>(random() % 80))));
    for (Receiver& receiver : receivers) world.send(receiver.peer, protocol::Attach{1, items.back().job, 0});
  }
  for (uint32_t step = 0; step < 100; ++step) {
    for (const auto& item : items) {
      if (step < static_cast<uint32_t>(item.max_new_tokens)) {
        world.send(
            world.worker,
            protocol::Tokens{1,
                             {item.lease},
                             {step},
                             {kFirstByteId + 'a'},
                             {static_cast<uint8_t>(step + 1 == static_cast<uint32_t>(item.max_new_tokens) ? 2 : 0)}});
      }
    }
    world.tokenize();
    for (size_t i = 0; i < receivers.size(); ++i) take_some(i, false);
  }
  for (int round = 0; round < 200; ++round) {
    for (size_t i = 0; i < receivers.size(); ++i) take_some(i, true);
  }
  for (Receiver& receiver : receivers) {
    EXPECT_EQ(receiver.results.size(), items.size());
    for (const auto& [job, result] : receiver.results) {
      EXPECT_EQ(result.text, std::string(result.text.size(), 'a'));
      EXPECT_EQ(result.text.substr(0, receiver.texts[job].size()), receiver.texts[job]);
    }
  }
}

}  // namespace credits_test
}  // namespace optserve::scheduler::testing

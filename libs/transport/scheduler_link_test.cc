#include "transport/scheduler_link.h"

#include <gtest/gtest.h>

#include <random>

namespace optserve::transport {
namespace scheduler_link_test {

using protocol::Heartbeat;
using protocol::Pong;
using protocol::Refused;
using protocol::Register;
using protocol::Registered;

// A link, a clock and what the link did.
struct Rig {
  explicit Rig(uint64_t seed = 1) : link(hello(), with_seed(seed), callbacks()) {}

  static Register hello() {
    Register message;
    message.instance = Id128::random();
    message.name = "worker";
    return message;
  }
  static SchedulerLinkOptions with_seed(uint64_t seed) {
    SchedulerLinkOptions options;
    options.seed = seed;
    return options;
  }
  SchedulerLink::Callbacks callbacks() {
    return {.on_registered =
                [this](uint64_t term, bool new_term, Instant, Outbox&) {
                  registrations.push_back({term, new_term});
                },
            .on_lost = [this](Instant, Outbox&) { ++losses; }};
  }
  // Ticks every 100 ms; `answer` acts as the scheduler.
  void pass(Duration time) {
    for (Duration done{}; done < time; done += milliseconds(100)) {
      clock.advance(milliseconds(100));
      link.on_tick(clock.now(), out);
      collect();
    }
  }
  void collect() {
    reconnects += out.take_reconnects().size();
    for (auto& item : out.take()) {
      sent.push_back(item.message);
      if (answer) answer(item.message);
    }
  }
  void receive(const protocol::Message& message) {
    link.on_message(message, clock.now(), out);
    collect();
  }
  // A scheduler that answers everything, in this term.
  void serve(uint64_t term) {
    answer = [this, term](const protocol::Message& message) {
      if (std::holds_alternative<Register>(message)) receive(Registered{term});
      if (const auto* beat = std::get_if<Heartbeat>(&message)) receive(Pong{beat->number, term});
    };
  }
  template <class T>
  size_t count() const {
    return static_cast<size_t>(
        std::count_if(sent.begin(), sent.end(), [](const auto& m) { return std::holds_alternative<T>(m); }));
  }

  FakeClock clock;
  Outbox out;
  std::vector<protocol::Message> sent;
  std::vector<std::pair<uint64_t, bool>> registrations;
  int losses = 0;
  size_t reconnects = 0;
  std::function<void(const protocol::Message&)> answer;
  SchedulerLink link;
};

using Registrations = std::vector<std::pair<uint64_t, bool>>;

TEST(SchedulerLink, RegistersThenBeatsEverySecond) {
  Rig rig;
  rig.serve(4);
  rig.link.set_load({17, 3, true, 6});
  rig.pass(seconds(10));
  EXPECT_EQ(rig.registrations, (Registrations{{4, true}}));
  EXPECT_TRUE(rig.link.is_registered());
  EXPECT_EQ(rig.link.term(), 4u);
  EXPECT_EQ(rig.count<Register>(), 1u);
  EXPECT_GE(rig.count<Heartbeat>(), 9u);
  EXPECT_LE(rig.count<Heartbeat>(), 10u);
  const auto& beat = std::get<Heartbeat>(rig.sent.back());
  EXPECT_EQ(beat.instance, rig.link.instance());
  EXPECT_EQ(beat.steps, 17u);
  EXPECT_EQ(beat.running, 3);
  EXPECT_TRUE(beat.draining);
  EXPECT_EQ(beat.capacity, 6);
  EXPECT_EQ(rig.losses, 0);
  EXPECT_EQ(rig.reconnects, 0u);
}

TEST(SchedulerLink, KeepsTryingAtASlowerPaceAndReconnects) {
  Rig rig;
  rig.pass(seconds(60));
  // Attempts are at most 2 s apart, and at least 1 s once the wait has grown.
  EXPECT_GE(rig.count<Register>(), 28u);
  EXPECT_LE(rig.count<Register>(), 66u);
  EXPECT_GE(rig.reconnects, 5u);
  EXPECT_LE(rig.reconnects, 12u);
  EXPECT_EQ(rig.count<Heartbeat>(), 0u);
  EXPECT_EQ(rig.losses, 0);  // never had it
}

TEST(SchedulerLink, SilenceIsReportedOnceAndHealed) {
  Rig rig;
  rig.serve(4);
  rig.pass(seconds(3));
  rig.answer = nullptr;
  rig.pass(milliseconds(4'000));
  EXPECT_EQ(rig.losses, 0);
  rig.pass(milliseconds(2'000));
  EXPECT_EQ(rig.losses, 1);
  EXPECT_FALSE(rig.link.is_registered());
  rig.pass(seconds(20));
  EXPECT_EQ(rig.losses, 1);
  EXPECT_GE(rig.reconnects, 1u);
  rig.serve(4);
  rig.pass(seconds(3));
  EXPECT_EQ(rig.registrations, (Registrations{{4, true}, {4, false}}));
  rig.answer = nullptr;
  rig.pass(seconds(6));
  EXPECT_EQ(rig.losses, 2);
}

// What a scheduler that answers but does not take us back has leased no longer counts.
TEST(SchedulerLink, ASchedulerThatRefusesToTakeItBackIsLostToo) {
  Rig rig;
  rig.serve(4);
  rig.pass(seconds(2));
  rig.answer = [&](const protocol::Message&) { rig.receive(Refused{0, ErrorCode::kNotFound, "go away"}); };
  rig.pass(seconds(5));
  EXPECT_EQ(rig.losses, 0);
  rig.pass(seconds(2));
  EXPECT_EQ(rig.losses, 1);
  rig.pass(seconds(20));
  EXPECT_EQ(rig.losses, 1);
}

TEST(SchedulerLink, KnowsWhatWaitsAtItsScheduler) {
  Rig rig;
  rig.serve(4);
  rig.pass(seconds(2));
  EXPECT_EQ(rig.link.waiting(), 0);
  rig.receive(Pong{1, 4, 700});
  EXPECT_EQ(rig.link.waiting(), 700);
  rig.receive(Pong{1, 4, -5});
  EXPECT_EQ(rig.link.waiting(), 0);
  rig.receive(Pong{1, 5, 9});  // restarted: what it says counts once it has registered us
  EXPECT_EQ(rig.link.waiting(), 0);
}

TEST(SchedulerLink, BeatsAtOnceWhenAsked) {
  Rig rig;
  rig.link.beat(rig.clock.now(), rig.out);
  EXPECT_TRUE(rig.out.empty());  // to nobody
  rig.serve(4);
  rig.pass(seconds(2));
  const size_t before = rig.count<Heartbeat>();
  rig.link.set_load({.draining = true});
  rig.link.beat(rig.clock.now(), rig.out);
  rig.collect();
  ASSERT_EQ(rig.count<Heartbeat>(), before + 1);
  rig.pass(milliseconds(900));
  EXPECT_EQ(rig.count<Heartbeat>(), before + 1);  // the next one is due a second later
}

TEST(SchedulerLink, AnyMessageProvesLife) {
  Rig rig;
  rig.serve(4);
  rig.pass(seconds(2));
  rig.answer = nullptr;
  for (int i = 0; i < 10; ++i) {
    rig.pass(seconds(2));
    EXPECT_FALSE(rig.link.on_message(protocol::Revoke{4, {1}}, rig.clock.now(), rig.out));
  }
  EXPECT_EQ(rig.losses, 0);
}

TEST(SchedulerLink, NewSchedulerIsNoticedByItsTerm) {
  Rig rig;
  rig.serve(4);
  rig.pass(seconds(2));
  rig.serve(5);  // restarted: answers a heartbeat with its own term
  rig.pass(seconds(2));
  EXPECT_EQ(rig.registrations, (Registrations{{4, true}, {5, true}}));
  EXPECT_EQ(rig.losses, 0);
}

TEST(SchedulerLink, RegistersAgainWhenTheSchedulerDoesNotKnowIt) {
  Rig rig;
  rig.serve(4);
  rig.pass(seconds(2));
  EXPECT_TRUE(rig.link.on_message(Refused{0, ErrorCode::kNotFound, "unknown service"}, rig.clock.now(), rig.out));
  rig.pass(seconds(1));
  EXPECT_EQ(rig.registrations, (Registrations{{4, true}, {4, false}}));
}

TEST(SchedulerLink, RefusedRegistrationIsRepeatedSlowly) {
  Rig rig;
  rig.answer = [&](const protocol::Message&) { rig.receive(Refused{0, ErrorCode::kNotFound, "go away"}); };
  rig.pass(seconds(20));
  EXPECT_TRUE(rig.registrations.empty());
  EXPECT_GE(rig.count<Register>(), 9u);
  EXPECT_LE(rig.count<Register>(), 30u);
  EXPECT_EQ(rig.reconnects, 0u);  // it does answer
}

TEST(SchedulerLink, OtherRefusalsAreTheServicesBusiness) {
  Rig rig;
  rig.serve(4);
  rig.pass(seconds(2));
  EXPECT_FALSE(rig.link.on_message(Refused{0, ErrorCode::kBadRequest, "bad"}, rig.clock.now(), rig.out));
  EXPECT_TRUE(rig.link.is_registered());
}

TEST(SchedulerLink, RegistersAtOnceOnANewConnection) {
  Rig rig;
  rig.link.on_connected(rig.clock.now(), rig.out);
  rig.collect();
  EXPECT_EQ(rig.count<Register>(), 0u) << "it does so in its own time, as others of a fleet do";
  rig.serve(1);
  rig.pass(seconds(2));
  const size_t before = rig.count<Register>();
  rig.link.on_connected(rig.clock.now(), rig.out);
  rig.collect();
  EXPECT_EQ(rig.count<Register>(), before + 1);
  EXPECT_EQ(rig.registrations, (Registrations{{1, true}, {1, false}}));
  EXPECT_EQ(rig.losses, 0);
}

TEST(SchedulerLink, UndeliverableRegisterIsRepeatedSoon) {
  Rig rig;
  rig.answer = [&](const protocol::Message& message) {
    EXPECT_TRUE(rig.link.on_undeliverable(message, rig.clock.now()));
  };
  rig.pass(seconds(4));
  EXPECT_GE(rig.count<Register>(), 16u);  // every 200 ms or sooner, so that no time is lost once the address answers
  EXPECT_FALSE(rig.link.on_undeliverable(protocol::Tokens{}, rig.clock.now()));
}

TEST(SchedulerLink, GoodbyeIsTheLastWord) {
  Rig rig;
  rig.serve(4);
  rig.pass(seconds(2));
  rig.link.goodbye(rig.out);
  rig.collect();
  ASSERT_TRUE(std::holds_alternative<protocol::Goodbye>(rig.sent.back()));
  const size_t before = rig.sent.size();
  rig.pass(seconds(10));
  rig.receive(Registered{9});
  EXPECT_EQ(rig.sent.size(), before);
  EXPECT_FALSE(rig.link.is_registered());
}

TEST(SchedulerLink, UpdateTellsTheScheduler) {
  Rig rig;
  rig.serve(4);
  rig.pass(seconds(2));
  Register more = Rig::hello();
  more.models.push_back({"opt-125m", "", "", 2048, 50272});
  rig.link.update(more, rig.clock.now(), rig.out);
  rig.collect();
  EXPECT_EQ(rig.count<Register>(), 2u);
  EXPECT_EQ(rig.registrations.size(), 1u);  // same session
}

TEST(SchedulerLink, AFleetDoesNotRegisterInStep) {
  std::vector<int> per_tick(4, 0);
  for (uint64_t seed = 0; seed < 300; ++seed) {
    Rig rig(seed);
    for (int& tick : per_tick) {
      const size_t before = rig.count<Register>();
      rig.pass(milliseconds(100));
      tick += static_cast<int>(rig.count<Register>() - before);
    }
  }
  for (const int count : per_tick) EXPECT_LT(count, 240);
}

// Whatever the network does, once it is quiet and the scheduler answers, the link is registered in its term.
TEST(SchedulerLink, AlwaysHealsAfterRandomFaults) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int run = 0; run < 200; ++run) {
    Rig rig(random());
    uint64_t term = 1;
    rig.answer = [&](const protocol::Message& message) {
      term += random() % 50 == 0;
      switch (random() % 5) {
        case 0:
          return;  // lost
        case 1:
          rig.link.on_undeliverable(message, rig.clock.now());
          return;
        case 2:
          rig.receive(Refused{0, ErrorCode::kNotFound, "unknown service"});
          return;
        default:
          if (std::holds_alternative<Register>(message)) rig.receive(Registered{term});
          if (std::holds_alternative<Heartbeat>(message)) rig.receive(Pong{1, term});
      }
    };
    rig.pass(seconds(20));
    rig.serve(term + 1);
    rig.pass(seconds(4));
    ASSERT_TRUE(rig.link.is_registered());
    ASSERT_EQ(rig.link.term(), term + 1);
    ASSERT_EQ(rig.registrations.back(), (std::pair{term + 1, true}));
  }
}

}  // namespace scheduler_link_test
}  // namespace optserve::transport

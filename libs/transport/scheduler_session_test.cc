#include "transport/scheduler_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>

#include "base/build_info.h"

namespace optserve::transport {
namespace {

TEST(Registration, NamesThisProcessAndIsNewEachTime) {
  const protocol::Register hello = new_registration(), other = new_registration();
  EXPECT_THAT(hello.name, ::testing::HasSubstr(std::to_string(getpid())));
  EXPECT_EQ(hello.build, build_version());
  EXPECT_NE(hello.instance, other.instance);
  EXPECT_NE(link_options(hello).seed, link_options(other).seed);
  EXPECT_EQ(link_options(hello).seed, link_options(hello).seed);
}

// Asks for nothing and is drained at once.
class Idle final : public Service {
 public:
  explicit Idle(const Health& health) : health_(health) {}
  void on_message(const Peer&, protocol::Message, Instant, Outbox&) override {}
  void on_undeliverable(const Peer&, protocol::Message, bool, Instant, Outbox&) override {}
  void on_tick(Instant, Outbox&) override {
    started = health_.started;
    std::raise(SIGTERM);
  }
  void begin_drain(Instant, Outbox&) override { ++drains; }
  bool is_drained() const override { return drains > 0; }
  bool started = false;
  int drains = 0;

 private:
  const Health& health_;
};

TEST(Session, RunsUntilItIsToldToStop) {
  Registry metrics;
  Health health;
  Idle service(health);
  int prepared = 0;
  serve_scheduler(service, {"tcp://127.0.0.1:1", seconds(1), [&](ServiceLoop&) { ++prepared; }}, metrics, health);
  EXPECT_TRUE(service.started);
  EXPECT_EQ(service.drains, 1);
  EXPECT_EQ(prepared, 1);
}

TEST(Session, AnAddressThatIsNoneIsAnError) {
  Registry metrics;
  Health health;
  Idle service(health);
  EXPECT_THROW(serve_scheduler(service, {"nowhere", seconds(1), {}}, metrics, health), Error);
}

}  // namespace
}  // namespace optserve::transport

#include "transport/scheduler_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>

#include "base/build_info.h"
#include "base/error.h"
#include "base/limits.h"

namespace optserve::transport {
namespace scheduler_session_test {

TEST(Registration, NamesThisProcessAndIsNewEachTime) {
  const protocol::Register hello = new_registration(), other = new_registration();
  EXPECT_THAT(hello.name, ::testing::HasSubstr(std::to_string(getpid())));
  EXPECT_EQ(hello.build, build_version());
  EXPECT_NE(hello.instance, other.instance);
  const std::vector<std::string> two = {"tcp://127.0.0.1:1", "tcp://127.0.0.1:2"};
  EXPECT_NE(link_options(hello, two).seed, link_options(other, two).seed);
  EXPECT_EQ(link_options(hello, two).seed, link_options(hello, two).seed);
  EXPECT_EQ(link_options(hello, two).schedulers, 2);
}

TEST(Schedulers, AreOneOrMoreDifferentEndpoints) {
  check_schedulers({"tcp://a:1"});
  check_schedulers({"tcp://a:1", "tcp://b:1"});
  EXPECT_THROW(check_schedulers({}), Error);
  EXPECT_THROW(check_schedulers({"tcp://a:1", "tcp://b:1", "tcp://a:1"}), Error);
  std::vector<std::string> many;
  for (size_t i = 0; i < limits::kSchedulersMax; ++i) many.push_back("tcp://a:" + std::to_string(i));
  check_schedulers(many);
  many.push_back("tcp://b:1");
  EXPECT_THROW(check_schedulers(many), Error);
  EXPECT_THROW(link_options(new_registration(), many), Error);
}

// Asks for nothing and is drained at once.
class Idle final : public Service {
 public:
  explicit Idle(const metrics::Health& health) : health_(health) {}
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
  const metrics::Health& health_;
};

TEST(Session, RunsUntilItIsToldToStop) {
  metrics::Registry metrics;
  const SystemClock clock;
  metrics::Health health(clock);
  Idle service(health);
  int prepared = 0;
  serve_scheduler(service, {{"tcp://127.0.0.1:1", "tcp://127.0.0.1:2"}, seconds(1), [&](ServiceLoop&) { ++prepared; }},
                  metrics, health);
  EXPECT_TRUE(service.started);
  EXPECT_EQ(service.drains, 1);
  EXPECT_EQ(prepared, 1);
  for (const char* port : {"scheduler-0", "scheduler-1"}) EXPECT_THAT(metrics.text(), ::testing::HasSubstr(port));
}

TEST(Session, AnAddressThatIsNoneIsAnError) {
  metrics::Registry metrics;
  const SystemClock clock;
  metrics::Health health(clock);
  Idle service(health);
  EXPECT_THROW(serve_scheduler(service, {{"nowhere"}, seconds(1), {}}, metrics, health), Error);
}

}  // namespace scheduler_session_test
}  // namespace optserve::transport

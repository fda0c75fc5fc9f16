#include "transport/reachability.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "transport/peer_watch.h"

namespace optserve::transport {
namespace reachability_test {

using ::testing::HasSubstr;

// Listens on a free port of the loopback address of one family.
class Listener {
 public:
  explicit Listener(int family) : fd_(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_storage storage{};
    socklen_t size = 0;
    if (family == AF_INET) {
      auto* address = reinterpret_cast<sockaddr_in*>(&storage);
      address->sin_family = AF_INET;
      address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      size = sizeof *address;
    } else {
      auto* address = reinterpret_cast<sockaddr_in6*>(&storage);
      address->sin6_family = AF_INET6;
      address->sin6_addr = in6addr_loopback;
      size = sizeof *address;
    }
    is_listening_ = bind(fd_, reinterpret_cast<sockaddr*>(&storage), size) == 0 && listen(fd_, 8) == 0;
    size = sizeof storage;
    getsockname(fd_, reinterpret_cast<sockaddr*>(&storage), &size);
    port_ = ntohs(family == AF_INET ? reinterpret_cast<sockaddr_in*>(&storage)->sin_port
                                    : reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port);
  }
  ~Listener() { stop(); }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  void stop() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }
  bool is_listening() const { return is_listening_; }
  std::string endpoint(const std::string& host) const { return "tcp://" + host + ":" + std::to_string(port_); }

 private:
  int fd_;
  bool is_listening_ = false;
  int port_ = 0;
};

TEST(Reachability, SomebodyListens) {
  const Listener listener(AF_INET);
  const Reachability found = look_at(listener.endpoint("127.0.0.1"), seconds(1));
  EXPECT_TRUE(found.is_reachable);
  EXPECT_FALSE(found.needs_ipv6);
  EXPECT_EQ(found.why, "");
}

TEST(Reachability, NobodyListens) {
  Listener listener(AF_INET);
  listener.stop();
  const Reachability found = look_at(listener.endpoint("127.0.0.1"), seconds(1));
  EXPECT_FALSE(found.is_reachable);
  EXPECT_TRUE(found.is_refused);
  EXPECT_EQ(found.why, "connection refused");
}

TEST(Reachability, UnknownNamesAreNamed) {
  const Reachability found = look_at("tcp://no-such-host.invalid:5555", seconds(1));
  EXPECT_FALSE(found.is_reachable);
  EXPECT_THAT(found.why, HasSubstr("the name 'no-such-host.invalid' cannot be resolved"));
}

// "localhost" has addresses of both families here or only of IPv4; only the one that answers counts.
TEST(Reachability, TheFamilyThatAnswersIsChosen) {
  const Listener four(AF_INET);
  EXPECT_FALSE(look_at(four.endpoint("localhost"), seconds(1)).needs_ipv6);
  const Listener six(AF_INET6);
  if (!six.is_listening()) GTEST_SKIP() << "this machine has no IPv6";
  const Reachability literal = look_at(six.endpoint("[::1]"), seconds(1));
  EXPECT_TRUE(literal.is_reachable);
  EXPECT_TRUE(literal.needs_ipv6);
  EXPECT_TRUE(look_at(six.endpoint("[::1]"), Duration::zero()).needs_ipv6);  // by its addresses alone
  EXPECT_EQ(look_at(six.endpoint("localhost"), seconds(1)).needs_ipv6,
            look_at(six.endpoint("localhost"), seconds(1)).is_reachable);
}

TEST(Reachability, OtherKindsOfEndpointsAreNotLookedAt) {
  EXPECT_TRUE(look_at("ipc:///tmp/nowhere", seconds(1)).is_reachable);
  EXPECT_TRUE(look_at("tcp://no-port", seconds(1)).is_reachable);
}

TEST(Reachability, LooksInTheBackground) {
  const Listener listener(AF_INET);
  const BackgroundLook look(listener.endpoint("127.0.0.1"), seconds(1));
  const auto found = look.result(seconds(10));
  ASSERT_TRUE(found.has_value());
  EXPECT_TRUE(found->is_reachable);
}

// A leader that was paused still has its connection, and messages must not be divided between it and its successor.
TEST(Alternatives, APortTalksToOneOfItsAddressesAndThenToTheNext) {
  zmq::context_t context{1};
  auto first = std::make_unique<ZmqPort>(context, ZmqPort::Kind::kRouter, "tcp://127.0.0.1:*", PortOptions{});
  ZmqPort second(context, ZmqPort::Kind::kRouter, "tcp://127.0.0.1:*", PortOptions{});
  const std::string both = first->last_endpoint() + "|" + second.last_endpoint();
  EXPECT_TRUE(look_at(both, seconds(1)).is_reachable);
  ZmqPort dealer(context, ZmqPort::Kind::kDealer, both, {});
  const SystemClock clock;
  int at_first = 0, at_second = 0;
  const auto talk = [&](int messages) {
    std::string route;
    zmq::message_t payload;
    for (int sent = 0, turn = 0; turn < 1'000 && (sent < messages || at_first + at_second < messages); ++turn) {
      dealer.look_around(clock.now());
      if (sent < messages && dealer.send("", "m") == Sent::kYes) ++sent;
      if (first && first->receive(route, payload) == Received::kFrame) ++at_first;
      if (second.receive(route, payload) == Received::kFrame) ++at_second;
      std::this_thread::sleep_for(milliseconds(5));
    }
  };
  talk(20);
  EXPECT_EQ(at_first, 20);
  EXPECT_EQ(at_second, 0);
  first.reset();
  std::this_thread::sleep_for(milliseconds(50));
  at_first = 0;
  talk(20);
  EXPECT_EQ(at_second, 20);
}

// What a service and its operator see of a scheduler that is not there, and when it appears.
TEST(PeerWatch, ASilentPeerIsReportedWithTheReason) {
  Listener listener(AF_INET);
  const std::string endpoint = listener.endpoint("127.0.0.1");
  listener.stop();
  FakeClock clock;
  metrics::Health health(clock);
  zmq::context_t context{1};
  ZmqPort port(context, ZmqPort::Kind::kDealer, endpoint, {});
  PeerWatch watch(port, &health);
  watch.on_tick(clock.now());
  clock.advance(seconds(2));
  watch.on_tick(clock.now());
  EXPECT_EQ(health.problem(), "");  // it may still be starting
  clock.advance(seconds(2));
  for (int i = 0; i < 1'000 && health.problem().empty(); ++i) {
    watch.on_tick(clock.now());
    std::this_thread::sleep_for(milliseconds(5));
  }
  EXPECT_EQ(health.problem(), "no answer from the scheduler at " + endpoint + ": connection refused");
  watch.heard(clock.now());
  EXPECT_EQ(health.problem(), "");
}

}  // namespace reachability_test
}  // namespace optserve::transport

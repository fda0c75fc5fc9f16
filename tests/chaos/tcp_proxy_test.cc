// The proxy in front of a server that sends back what it receives.
#include "tcp_proxy.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ledger.h"
#include "sockets.h"

namespace optserve::chaos {
namespace tcp_proxy_test {

class EchoServer {
 public:
  EchoServer() : listener_(listen_on({})), thread_([this] { run(); }) {}
  ~EchoServer() {
    stopping_.store(true);
    thread_.join();
    close(listener_);
  }
  TcpAddress address() const { return {"127.0.0.1", port_of(listener_)}; }

 private:
  void run() {
    std::vector<pollfd> polled = {{listener_, POLLIN, 0}};
    while (!stopping_.load()) {
      poll(polled.data(), polled.size(), 5);
      const int fd = accept(listener_, nullptr, nullptr);
      if (fd >= 0) polled.push_back({fd, POLLIN, 0});
      for (size_t i = 1; i < polled.size(); ++i) echo(polled[i].fd);
    }
    for (size_t i = 1; i < polled.size(); ++i) close(polled[i].fd);
  }
  static void echo(int fd) {
    char bytes[4096];
    const ssize_t got = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (got > 0) send_all(fd, {bytes, static_cast<size_t>(got)});
    if (got == 0) shutdown(fd, SHUT_WR);
  }

  int listener_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

class Proxy : public ::testing::Test {
 protected:
  Proxy() : link_(proxy_.add_link({}, server_.address())) {}
  ~Proxy() override {
    for (const int fd : sockets_) close(fd);
  }

  int connect() {
    sockets_.push_back(connect_to({"127.0.0.1", proxy_.port(link_)}, 10));
    return sockets_.back();
  }
  // What arrives within the time, or "EOF" or "RESET" if the connection ends.
  static std::string receive(int fd, int within_ms = 10'000) {
    pollfd item{fd, POLLIN, 0};
    if (poll(&item, 1, within_ms) == 0) return "";
    char bytes[4096];
    const ssize_t got = recv(fd, bytes, sizeof bytes, 0);
    return got > 0 ? std::string(bytes, static_cast<size_t>(got)) : got == 0 ? "EOF" : "RESET";
  }

  EchoServer server_;
  TcpProxy proxy_;
  int link_;
  std::vector<int> sockets_;
};

TEST_F(Proxy, PassesBytesBothWaysAndTheEnd) {
  const int fd = connect();
  ASSERT_TRUE(send_all(fd, "hello"));
  EXPECT_EQ(receive(fd), "hello");
  shutdown(fd, SHUT_WR);
  EXPECT_EQ(receive(fd), "EOF");
}

TEST_F(Proxy, PassesMoreThanItsBuffers) {
  const int fd = connect();
  const std::string sent(8 << 20, 'x');
  std::thread sender([&] { EXPECT_TRUE(send_all(fd, sent)); });
  size_t received = 0;
  while (received < sent.size()) {
    const std::string part = receive(fd);
    ASSERT_EQ(part.find_first_not_of('x'), std::string::npos) << part;
    received += part.size();
  }
  sender.join();
  EXPECT_EQ(received, sent.size());
}

TEST_F(Proxy, DelaysEachWay) {
  proxy_.set_rule(link_, {.delay_ms = 60});
  const int fd = connect();
  const int64_t began = now_ms();
  send_all(fd, "slow");
  EXPECT_EQ(receive(fd), "slow");
  EXPECT_GE(now_ms() - began, 120);
}

TEST_F(Proxy, AStallHoldsBytesBackUntilItEnds) {
  for (const LinkRule rule : {LinkRule{.stall_up = true}, LinkRule{.stall_down = true}}) {
    const int fd = connect();
    send_all(fd, "first");
    EXPECT_EQ(receive(fd), "first");
    proxy_.set_rule(link_, rule);
    send_all(fd, "second");
    EXPECT_EQ(receive(fd, 100), "");
    proxy_.set_rule(link_, {});
    EXPECT_EQ(receive(fd), "second");
  }
}

TEST_F(Proxy, ACutResetsWhatIsThereAndNothingLater) {
  const int before = connect();
  send_all(before, "hello");
  EXPECT_EQ(receive(before), "hello");
  proxy_.cut(link_);
  EXPECT_EQ(receive(before), "RESET");
  const int after = connect();
  send_all(after, "again");
  EXPECT_EQ(receive(after), "again");
}

TEST_F(Proxy, AHalfCloseEndsOneDirection) {
  const int fd = connect();
  send_all(fd, "hello");
  EXPECT_EQ(receive(fd), "hello");
  proxy_.half_close(link_, Direction::kDown);
  EXPECT_EQ(receive(fd), "EOF");
  EXPECT_TRUE(send_all(fd, "still taken"));
}

TEST_F(Proxy, SwallowedConnectionsGoNowhereAndEndWithTheRule) {
  proxy_.set_rule(link_, {.swallow = true});
  const int fd = connect();
  ASSERT_GE(fd, 0);
  EXPECT_TRUE(send_all(fd, "hello"));
  EXPECT_EQ(receive(fd, 100), "");
  proxy_.set_rule(link_, {});
  EXPECT_EQ(receive(fd), "RESET");
}

}  // namespace tcp_proxy_test
}  // namespace optserve::chaos

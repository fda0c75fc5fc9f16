// Ports with keys: who may connect, and what a listener on the network can do with what it hears.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <mutex>
#include <thread>

#include "base/program.h"
#include "transport/curve/secure_test_nodes.h"
#include "transport/locality.h"
#include "transport/zmq_port.h"

namespace optserve::transport {
namespace secure_loop_test {
namespace {

using keys::SecretKey;
using testing::HasSubstr;
using testing::SizeIs;

TEST(Locality, OnlyLoopbackIsLocal) {
  for (const char* endpoint : {"tcp://127.0.0.1:5555", "tcp://127.3.2.1:1", "tcp://localhost:5555", "tcp://[::1]:5555",
                               "ipc:///run/optserve", "inproc://x", "tcp://127.0.0.1:1|tcp://[::1]:2"}) {
    EXPECT_TRUE(is_local(endpoint)) << endpoint;
  }
  for (const char* endpoint :
       {"tcp://0.0.0.0:5555", "tcp://*:5555", "tcp://eth0:5555", "tcp://10.0.0.1:5555", "tcp://[::]:5555",
        "tcp://scheduler:5555", "tcp://localhost.example.org:1", "tcp://127.0.0.1.example.org:1",
        "tcp://127.0.0.1;10.0.0.1:5555", "pgm://x", "", "udp://127.0.0.1:1", "tcp://127.0.0.1:1|tcp://10.0.0.1:1",
        "tcp://10.0.0.1:1|tcp://127.0.0.1:1", "tcp://127.0.0.1:1|"}) {
    EXPECT_FALSE(is_local(endpoint)) << endpoint;
  }
}

TEST(SecureLoop, WithoutKeysNothingLeavesTheMachineUnlessItIsInsecure) {
  KeyedNode plain({});
  const auto message_of = [&](const auto& act) {
    try {
      act();
    } catch (const ConfigurationError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(message_of([&] { plain.listen("tcp://0.0.0.0:0"); }), HasSubstr("optserve keys new"));
  EXPECT_THAT(message_of([&] { plain.dial("tcp://scheduler.example:5555"); }), HasSubstr("--server-key"));
  EXPECT_THAT(message_of([&] { plain.dial("tcp://10.1.2.3:5555"); }), HasSubstr("--insecure"));
  plain.options.is_insecure = true;
  plain.listen("tcp://0.0.0.0:0");
  Authority authority;
  KeyedNode keyed(authority.server());
  keyed.listen("tcp://0.0.0.0:0");
}

TEST(SecureLoop, AnAllowedKeyComesInAndIsKnown) {
  Authority authority;
  const SecretKey key = keys::new_secret_key();
  authority.allow(key, "client=shop operator");
  KeyedNode server(authority.server()), client(authority.client(key));
  client.dial(server.listen());
  ASSERT_TRUE(gets_in(server, client));
  const keys::AllowedKey* known = server.loop.key_of(server.service.received.front().first);
  ASSERT_NE(known, nullptr);
  EXPECT_EQ(known->key, key.public_key());
  EXPECT_TRUE(known->tenants.contains("shop"));
  EXPECT_EQ(server.value("optserve_handshakes_total{result=\"let_in\"}"), 1);
}

TEST(SecureLoop, WhoHasNoAllowedKeyReachesNothing) {
  Authority authority;
  const SecretKey worker = keys::new_secret_key(), known = keys::new_secret_key();
  authority.allow(worker, "worker=m");
  authority.allow(known);
  KeyedNode server(authority.server());
  const std::string endpoint = server.listen();
  KeyedNode unknown(authority.client(keys::new_secret_key()));
  KeyedNode other_door(authority.client(worker));
  KeyedNode wrong_server(authority.client(known, {keys::new_secret_key().public_key()}));
  KeyedNode plain({});
  for (KeyedNode* client : {&unknown, &other_door, &wrong_server, &plain}) {
    client->dial(endpoint);
    EXPECT_FALSE(gets_in(server, *client, kLongEnough));
  }
  EXPECT_THAT(server.service.received, SizeIs(0));
  EXPECT_THAT(unknown.service.last_why, HasSubstr("does not allow the key opt-public-"));
  EXPECT_THAT(other_door.service.last_why, HasSubstr("does not allow the key opt-public-"));
  EXPECT_EQ(wrong_server.service.refusals, 0) << "the network could be the cause too";
  EXPECT_GE(server.value("optserve_handshakes_total{result=\"refused\"}"), 2);
  // The inverse: with the right key the same client can connect.
  KeyedNode good(authority.client(known));
  good.dial(endpoint);
  EXPECT_TRUE(gets_in(server, good));
}

TEST(SecureLoop, RawZmtpAndGarbageDoNotDisturb) {
  Authority authority;
  const SecretKey key = keys::new_secret_key();
  authority.allow(key);
  KeyedNode server(authority.server()), client(authority.client(key));
  const std::string endpoint = server.listen();
  RawDealer raw(endpoint);
  raw.send(protocol::encode(protocol::Ping{1}));
  client.dial(endpoint);
  ASSERT_TRUE(gets_in(server, client));
  turn(
      {&server}, [] { return false; }, kLongEnough);
  EXPECT_FALSE(raw.receive().has_value());
  for (const auto& [peer, message] : server.service.received) EXPECT_NE(server.loop.key_of(peer), nullptr);
}

// Without a handler, libzmq checks no keys and would let everybody in.
TEST(SecureLoop, WithoutAHandlerOfHandshakesNobodyComesIn) {
  Authority authority;
  const SecretKey key = keys::new_secret_key();
  authority.allow(key);
  zmq::context_t context;
  ZmqPort port(context, ZmqPort::Kind::kRouter, "tcp://127.0.0.1:0", authority.server());
  KeyedNode client(authority.client(key));
  client.dial(port.last_endpoint());
  std::string route;
  zmq::message_t frame;
  size_t received = 0;
  turn(
      {&client},
      [&] {
        client.ping(1);
        received += port.receive(route, frame) != Received::kNothing;
        return false;
      },
      kLongEnough);
  EXPECT_EQ(received, 0u);
}

TEST(SecureLoop, TheFloodOfAnUnknownKeyLeavesTheOthersTheirTurn) {
  Authority authority;
  const SecretKey key = keys::new_secret_key();
  authority.allow(key);
  KeyedNode server(authority.server()), client(authority.client(key));
  const std::string endpoint = server.listen();
  client.dial(endpoint);
  ASSERT_TRUE(gets_in(server, client));
  std::vector<std::unique_ptr<KeyedNode>> strangers;
  std::vector<KeyedNode*> all{&server, &client};
  for (int i = 0; i < 20; ++i) {
    all.push_back(strangers.emplace_back(std::make_unique<KeyedNode>(authority.client(keys::new_secret_key()))).get());
    strangers.back()->dial(endpoint);
  }
  for (uint64_t number = 1; number <= 50; ++number) {
    client.ping(number);
    ASSERT_TRUE(turn(
        all, [&] { return client.was_answered(number); }, seconds(2)));
  }
  EXPECT_EQ(client.service.refusals, 0);
}

// Stands between a client and a server on TCP and keeps all bytes that the client sent.
class Listener {
 public:
  explicit Listener(const std::string& to) : port_(std::stoi(to.substr(to.rfind(':') + 1))) {
    in_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in any = address(0);
    socklen_t size = sizeof any;
    EXPECT_EQ(bind(in_, reinterpret_cast<sockaddr*>(&any), size), 0);
    EXPECT_EQ(listen(in_, 1), 0);
    getsockname(in_, reinterpret_cast<sockaddr*>(&any), &size);
    own_port_ = ntohs(any.sin_port);
    thread_ = std::thread([this] { run(); });
  }
  ~Listener() {
    shutdown(client_, SHUT_RDWR), shutdown(server_, SHUT_RDWR);
    thread_.join();
    for (const int fd : {in_, client_, server_}) close(fd);
  }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  std::string endpoint() const { return "tcp://127.0.0.1:" + std::to_string(own_port_); }

  static sockaddr_in address(int port) {
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_port = htons(static_cast<uint16_t>(port));
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return at;
  }
  static int dial(int port) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    const sockaddr_in at = address(port);
    EXPECT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&at), sizeof at), 0);
    return fd;
  }
  std::string heard() {
    const std::lock_guard lock(mutex_);
    return heard_;
  }

 private:
  void run() {
    client_ = accept(in_, nullptr, nullptr);
    server_ = dial(port_);
    std::thread back([this] { pump(server_, client_, nullptr); });
    pump(client_, server_, &heard_);
    back.join();
  }
  void pump(int from, int to, std::string* kept) {
    char buffer[4096];
    for (ssize_t got; (got = recv(from, buffer, sizeof buffer, 0)) > 0;) {
      if (kept != nullptr) {
        const std::lock_guard lock(mutex_);
        kept->append(buffer, static_cast<size_t>(got));
      }
      if (send(to, buffer, static_cast<size_t>(got), MSG_NOSIGNAL) != got) break;
    }
    shutdown(to, SHUT_RDWR);
  }
  int port_, own_port_ = 0, in_ = -1, client_ = -1, server_ = -1;
  std::mutex mutex_;
  std::string heard_;
  std::thread thread_;
};

TEST(SecureLoop, WhatAListenerHeardIsNeitherReadableNorOfUseAgain) {
  Authority authority;
  const SecretKey key = keys::new_secret_key();
  authority.allow(key);
  KeyedNode server(authority.server()), client(authority.client(key));
  const std::string endpoint = server.listen();
  std::string heard;
  {
    Listener listener(endpoint);
    client.dial(listener.endpoint());
    ASSERT_TRUE(gets_in(server, client));
    protocol::Submit submit;
    submit.jobs.emplace_back();
    submit.jobs.back().prompt = "a prompt that nobody else may read";
    client.service.to_send.send({}, submit);
    ASSERT_TRUE(turn({&server, &client},
                     [&] { return std::holds_alternative<protocol::Submit>(server.service.received.back().second); }));
    heard = listener.heard();
    EXPECT_EQ(heard.find("nobody else"), std::string::npos);
    EXPECT_GT(heard.size(), 300u);
  }
  // The same bytes on a new connection, with the server's own greeting and welcome in between.
  server.service.received.clear();
  const int fd = Listener::dial(std::stoi(endpoint.substr(endpoint.rfind(':') + 1)));
  ASSERT_EQ(send(fd, heard.data(), heard.size(), MSG_NOSIGNAL), static_cast<ssize_t>(heard.size()));
  turn(
      {&server}, [] { return false; }, kLongEnough);
  close(fd);
  for (const auto& [peer, message] : server.service.received) {
    EXPECT_FALSE(std::holds_alternative<protocol::Submit>(message));
  }
  EXPECT_EQ(server.value("optserve_handshakes_total{result=\"let_in\"}"), 1);
}

}  // namespace
}  // namespace secure_loop_test
}  // namespace optserve::transport

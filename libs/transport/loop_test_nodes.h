// For tests of the loop: services that record, whose loops run in the test's own thread, and a peer that speaks raw
// ZeroMQ.
#pragma once

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <deque>
#include <zmq.hpp>

#include "base/limits.h"
#include "protocol/codec.h"
#include "transport/service_loop.h"

namespace optserve::transport {

// Records everything; `handler` may answer.
class RecordingService : public Service {
 public:
  void on_message(const Peer& from, protocol::Message message, Instant now, Outbox& out) override {
    received.push_back({from, std::move(message)});
    if (handler) handler(received.back().first, received.back().second, now, out);
  }
  void on_undeliverable(const Peer& to, protocol::Message message, bool slow, Instant, Outbox&) override {
    undeliverable.push_back({to, std::move(message)});
    slow_count += slow;
  }
  void on_ended(const Peer& peer, Instant, Outbox&) override { ended.push_back(peer); }
  void on_connected(PortId, Instant, Outbox&) override {
    ++connected;
    received_before_connection = received.size();
  }
  void on_tick(Instant now, Outbox& out) override {
    ++ticks;
    for (auto& outgoing : to_send.take()) {
      if (outgoing.after == 0) {
        out.send(outgoing.to, std::move(outgoing.message));
      } else {
        out.send_after(outgoing.after, outgoing.to, std::move(outgoing.message));
      }
    }
    for (const PortId port : to_send.take_reconnects()) out.reconnect(port);
    last_tick = now;
  }
  Duration tick_interval() const override { return milliseconds(1); }
  void begin_drain(Instant, Outbox& out) override {
    drain_begun = true;
    if (on_drain) on_drain(out);
  }
  bool is_drained() const override { return drain_begun; }

  std::vector<uint64_t> ping_numbers() const {
    std::vector<uint64_t> numbers;
    for (const auto& [peer, message] : received) {
      if (const auto* ping = std::get_if<protocol::Ping>(&message)) numbers.push_back(ping->number);
      if (const auto* pong = std::get_if<protocol::Pong>(&message)) numbers.push_back(pong->number);
    }
    return numbers;
  }

  std::deque<std::pair<Peer, protocol::Message>> received;
  std::vector<std::pair<Peer, protocol::Message>> undeliverable;
  std::vector<Peer> ended;
  int slow_count = 0;
  int connected = 0;
  size_t received_before_connection = 0;
  int ticks = 0;
  bool drain_begun = false;
  Instant last_tick{};
  Outbox to_send;  // sent at the next tick
  std::function<void(const Peer&, const protocol::Message&, Instant, Outbox&)> handler;
  std::function<void(Outbox&)> on_drain;
};

inline void answer_pings(const Peer& from, const protocol::Message& message, Instant, Outbox& out) {
  if (const auto* ping = std::get_if<protocol::Ping>(&message)) out.send(from, protocol::Pong{ping->number, 7});
}

// A service in its loop; tests run the turns of several of them in one thread.
struct Node {
  explicit Node(const PortOptions& defaults = {}) : options(defaults) {}

  std::string listen(const std::string& endpoint = "tcp://127.0.0.1:0") {
    return loop.bound_endpoint(loop.bind(endpoint, options));
  }
  PortId dial(const std::string& endpoint) { return loop.connect(endpoint, options); }
  void ping(uint64_t number, const Peer& to = {}) { service.to_send.send(to, protocol::Ping{number}); }

  SystemClock clock;
  metrics::Registry registry;
  RecordingService service;
  PortOptions options;
  ServiceLoop loop{service, clock, registry};
};

// Turns the loops until `done`; false after 10 s.
template <class Done>
bool turn_until(std::initializer_list<Node*> nodes, const Done& done) {
  const auto deadline = std::chrono::steady_clock::now() + seconds(10);
  while (!done()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    for (Node* node : nodes) node->loop.turn(milliseconds(1));
  }
  return true;
}

inline void turn_for(std::initializer_list<Node*> nodes, Duration time) {
  const auto deadline = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < deadline) {
    for (Node* node : nodes) node->loop.turn(milliseconds(1));
  }
}

// Sends a Ping each turn until a Pong shows that the connection is up, and then clears what was recorded.
inline void wait_connected(Node& server, Node& client) {
  constexpr uint64_t kProbe = 999'999;
  const auto kept = server.service.handler;
  server.service.handler = answer_pings;
  ASSERT_TRUE(turn_until({&server, &client}, [&] {
    if (client.service.received.empty()) client.ping(kProbe);
    return !client.service.received.empty();
  }));
  turn_for({&server, &client}, milliseconds(50));
  server.service.handler = kept;
  server.service.received.clear();
  client.service.received.clear();
  client.service.undeliverable.clear();
}

// A peer that speaks ZeroMQ but not our protocol.
struct RawDealer {
  explicit RawDealer(const std::string& endpoint, const std::string& routing_id = "") {
    if (!routing_id.empty()) socket.set(zmq::sockopt::routing_id, routing_id);
    socket.set(zmq::sockopt::linger, 0);
    socket.set(zmq::sockopt::rcvhwm, 10);  // so that a peer that does not read is noticed soon
    socket.connect(endpoint);
  }
  void send(std::string_view frame, bool more = false) {
    socket.send(zmq::buffer(frame), more ? zmq::send_flags::sndmore : zmq::send_flags::none);
  }
  std::optional<protocol::Message> receive() {
    zmq::message_t frame;
    if (!socket.recv(frame, zmq::recv_flags::dontwait)) return std::nullopt;
    auto message = protocol::decode(frame.to_string_view(), limits::kInternalMessageBytesMax);
    EXPECT_TRUE(message.ok());
    return std::move(message).value();
  }
  zmq::context_t context;
  zmq::socket_t socket{context, zmq::socket_type::dealer};
};

// What the loop sees of a journal.
struct FakeJournal {
  FakeJournal() : fd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}
  ~FakeJournal() { close(fd); }
  FakeJournal(const FakeJournal&) = delete;
  FakeJournal& operator=(const FakeJournal&) = delete;
  void commit(uint64_t sequence) {
    durable = sequence;
    const uint64_t one = 1;
    ASSERT_EQ(write(fd, &one, sizeof one), static_cast<ssize_t>(sizeof one));
  }
  int fd;
  uint64_t durable = 0;
};

}  // namespace optserve::transport

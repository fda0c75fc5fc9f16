// A service is a state machine: messages and ticks in, messages out through an Outbox. It holds no socket, thread or
// clock, so the same object runs in unit tests, in the simulation and in a process (service_loop.h).
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "protocol/codec.h"

namespace optserve::transport {

using PortId = int;  // index of a socket of the process, in the order they were opened

// Who sent a message or is to get one. `route` is the routing id that a ROUTER socket gave the connection; empty on a
// DEALER, which has one peer.
struct Peer {
  PortId port = 0;
  std::string route;
  auto operator<=>(const Peer&) const = default;
};

struct Outgoing {
  Peer to;
  protocol::Message message;
  uint64_t after = 0;  // journal sequence number that must be durable first; 0: at once
};

// What a service wants sent, in order per peer.
class Outbox {
 public:
  void send(Peer to, protocol::Message message) { items_.push_back({std::move(to), std::move(message), 0}); }
  // Held back until the journal says that `sequence` is on disk.
  void send_after(uint64_t sequence, Peer to, protocol::Message message) {
    items_.push_back({std::move(to), std::move(message), sequence});
  }
  std::vector<Outgoing> take() { return std::exchange(items_, {}); }
  bool empty() const { return items_.empty(); }

 private:
  std::vector<Outgoing> items_;
};

class Service {
 public:
  virtual ~Service() = default;
  virtual void on_message(const Peer& from, protocol::Message message, Instant now, Outbox& out) = 0;
  // A frame that could not be decoded. The default answers Refused on ports where `reply_to_garbage()` says so.
  virtual void on_garbage(const Peer& from, const Refusal& why, Instant now, Outbox& out);
  // A message could not be handed to this peer: it is gone (its connection ended) or it does not read (`slow`).
  virtual void on_undeliverable(const Peer& to, protocol::Message message, bool slow, Instant now, Outbox& out) = 0;
  // At least every tick_interval().
  virtual void on_tick(Instant now, Outbox& out) = 0;
  virtual Duration tick_interval() const { return milliseconds(100); }
  // After SIGTERM: called once. From then on is_drained() is asked after every turn; true ends the loop.
  virtual void begin_drain(Instant now, Outbox& out) = 0;
  virtual bool is_drained() const = 0;
};

}  // namespace optserve::transport

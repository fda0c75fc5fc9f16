// A service is a state machine: messages and ticks in, messages out through an Outbox. It holds no socket, thread or
// clock, so the same object runs in unit tests, in the simulation and in a process (service_loop.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "protocol/message.h"

namespace optserve::transport {

using PortId = int;  // index of a socket of the process, in the order they were opened

// Who sent a message, or who is to get one. `route` is the routing id that a ROUTER socket gave the connection; it is
// empty on a DEALER, which has one peer.
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

// The messages that a service sends. Messages to one peer keep their order among those sent with send(), and among
// those sent with send_after(); a message of send() may overtake one that waits for the journal. If the order matters
// (such as an answer before the events that follow from it), give both the same sequence number.
class Outbox {
 public:
  void send(Peer to, protocol::Message message) { items_.push_back({std::move(to), std::move(message), 0}); }
  // The message is held back until the journal says that `sequence` is on disk; 0 is not held back. Returns the number
  // after which it really leaves, which is never below that of an earlier message, since these messages leave in the
  // order in which they were given.
  uint64_t send_after(uint64_t sequence, Peer to, protocol::Message message) {
    if (sequence != 0) sequence = last_after_ = std::max(sequence, last_after_);
    items_.push_back({std::move(to), std::move(message), sequence});
    return sequence;
  }
  // Replaces the connection of a DEALER with a new one after the messages sent so far have left. This is for a peer
  // that stays silent although the network says that it is there. What the old connection still holds is lost.
  void reconnect(PortId port) { reconnects_.push_back(port); }

  std::vector<Outgoing> take() { return std::exchange(items_, {}); }
  std::vector<PortId> take_reconnects() { return std::exchange(reconnects_, {}); }
  bool empty() const { return items_.empty() && reconnects_.empty(); }
  const std::vector<Outgoing>& items() const { return items_; }  // not taken yet

 private:
  std::vector<Outgoing> items_;
  std::vector<PortId> reconnects_;
  uint64_t last_after_ = 0;
};

class Service {
 public:
  virtual ~Service() = default;
  virtual void on_message(const Peer& from, protocol::Message message, Instant now, Outbox& out) = 0;
  // A frame that could not be decoded. The default answers Refused to peers of a ROUTER; a DEALER's peer is trusted to
  // know its protocol, and answering could make two programs refuse each other forever.
  virtual void on_garbage(const Peer& from, const Refusal& why, Instant now, Outbox& out);
  // A message was not handed to this peer: its connection ended, or (`slow`, ROUTER only) it does not read and its
  // queue is full. A DEALER whose peer is not connected or does not read reports slow = false. When a connection ends,
  // messages handed over before may be lost as well, so what matters needs an answer.
  virtual void on_undeliverable(const Peer& to, protocol::Message message, bool slow, Instant now, Outbox& out) = 0;
  // The key of this peer of a ROUTER is no longer allowed. Nothing more comes from it, and nothing reaches it.
  virtual void on_expelled(const Peer&, const std::string& /*why*/, Instant, Outbox&) {}
  // The peer of this DEALER does not let us in. Called at each attempt; attempts go on, since keys may change.
  virtual void on_not_let_in(PortId, const std::string& /*why*/, Instant, Outbox&) {}
  // The connection of this peer of a ROUTER, which has sent something, has ended: its process did, or only the network
  // between. What it sent before may still come.
  virtual void on_ended(const Peer&, Instant, Outbox&) {}
  // This DEALER has a connection, the first or another one, on which its peer has not heard from us.
  // Called before anything that came on it.
  virtual void on_connected(PortId, Instant, Outbox&) {}
  // Called at least every tick_interval().
  virtual void on_tick(Instant now, Outbox& out) = 0;
  // Called when the loop is about to send: messages that were gathered over several on_*() calls go to `out` now.
  virtual void on_flush(Instant, Outbox&) {}
  virtual Duration tick_interval() const { return milliseconds(100); }
  // Called once, after SIGTERM. From then on, is_drained() is called after every turn, and true ends the loop.
  virtual void begin_drain(Instant now, Outbox& out) = 0;
  virtual bool is_drained() const = 0;
};

}  // namespace optserve::transport

// The loop that every ZeroMQ process runs in one thread: poll, decode, on_message / on_tick, flush. It owns the
// sockets.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/limits.h"
#include "keys/process_keys.h"
#include "metrics/health.h"
#include "metrics/metrics.h"
#include "transport/service.h"

namespace optserve::transport {

struct PortOptions {
  size_t message_bytes_max =
      limits::kInternalMessageBytesMax;                      // of received messages; a larger frame ends its connection
  int high_water_mark = 10'000;                              // complete messages per peer and direction
  std::string name = "scheduler";                            // label `port` of the metrics; a constant of the program
  size_t send_bytes_max = limits::kInternalMessageBytesMax;  // larger messages are undeliverable, and logged
  bool is_watched = false;  // a DEALER whose peer should always answer: its silence is logged, with the reason

  // With keys, every connection is encrypted and both sides are authenticated. Without them, a port only accepts
  // addresses of this machine unless is_insecure is set.
  std::shared_ptr<keys::ServerKeys> server_keys{};  // of a bound port: who may connect; the same for all ports
  keys::Door door = keys::Door::kClients;           // of a bound port
  std::shared_ptr<keys::ClientKeys> client_keys{};  // of a connection
  bool is_insecure = false;
};

// Says which of the messages that wait for the journal may leave.
struct DurabilityGate {
  int event_fd = -1;                  // becomes readable when durable() has moved
  std::function<uint64_t()> durable;  // the last sequence number on disk
};

class ServiceLoop {
 public:
  ServiceLoop(Service& service, const Clock& clock, metrics::Registry& metrics);
  ~ServiceLoop();
  ServiceLoop(const ServiceLoop&) = delete;
  ServiceLoop& operator=(const ServiceLoop&) = delete;

  // Binds a ROUTER with ROUTER_MANDATORY, so that unknown and slow peers are reported and nothing is dropped silently.
  // Throws Error naming the address, and ConfigurationError for an address that other machines can reach if there are
  // no keys. tcp://address:0 picks a port, which bound_endpoint() returns.
  PortId bind(const std::string& endpoint, const PortOptions& options);
  // Connects a DEALER, which reconnects by itself. Messages for a peer that is not connected are undeliverable and not
  // queued.
  PortId connect(const std::string& endpoint, const PortOptions& options);
  std::string bound_endpoint(PortId port) const;
  // The key of this connection; nullptr if the connection has ended or the port has no keys. The list of keys may be
  // read again at each tick, which invalidates pointers that were returned before.
  const keys::AllowedKey* key_of(const Peer& peer) const;
  // Of whoever sent the message that on_message() is called with; empty outside of it, and where there is none
  // (ipc://).
  std::string sender_address() const;

  // Must be called before anything uses Outbox::send_after(). The loop empties event_fd.
  void set_durability(DurabilityGate gate);
  // `health` is stamped at each turn and outlives the loop.
  void set_health(metrics::Health* health);
  // Calls `on_readable` in the loop when fd is readable: for the worker's engine thread, the journal's reads, and
  // tests.
  void watch(int fd, std::function<void(Instant now, Outbox& out)> on_readable);
  void unwatch(int fd);

  // Runs until the service is drained after SIGTERM (base/shutdown.h), the deadline after it passes, or a second
  // SIGTERM comes. Messages that wait for the journal leave before the loop ends.
  void run(Duration drain_deadline);
  // Makes run() return after the current turn, without a drain, because another process takes over.
  void end();
  // One turn: waits at most `wait` (and no longer than to the next tick) for something to do. run() is a loop around
  // it; tests and owners of a thread call it.
  void turn(Duration wait);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace optserve::transport

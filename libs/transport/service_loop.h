// The one loop that every ZeroMQ process runs: poll, decode, on_message / on_tick, flush. Owns the sockets; one thread.
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
      limits::kInternalMessageBytesMax;                      // of what is received; a larger frame ends its connection
  int high_water_mark = 10'000;                              // complete messages per peer and direction
  std::string name = "scheduler";                            // label `port` of the metrics; a constant of the program
  size_t send_bytes_max = limits::kInternalMessageBytesMax;  // larger messages are undeliverable, and logged
  bool is_watched = false;  // a DEALER whose peer should answer all the time: its silence is logged, with the reason

  // With keys every connection is encrypted, and both sides know each other. Without them a port is for this machine
  // alone, unless it is insecure.
  std::shared_ptr<keys::ServerKeys> server_keys{};  // of a bound port: who may come in. The same for all of a process
  keys::Door door = keys::Door::kClients;           // of a bound port
  std::shared_ptr<keys::ClientKeys> client_keys{};  // of a connection
  bool is_insecure = false;
};

// Says which of the messages waiting for the journal may leave.
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

  // ROUTER with ROUTER_MANDATORY: unknown and slow peers are reported, nothing is dropped silently. Throws Error naming
  // the address, and ConfigurationError for an address that others reach without keys. tcp://address:0 picks a port;
  // bound_endpoint() tells.
  PortId bind(const std::string& endpoint, const PortOptions& options);
  // DEALER that reconnects by itself; messages for a peer that is not connected are undeliverable, not queued.
  PortId connect(const std::string& endpoint, const PortOptions& options);
  std::string bound_endpoint(PortId port) const;
  // Whose connection this is; nullptr: it has ended, or the port has no keys. The list of keys is read again with each
  // tick, and what was returned before is not valid after that.
  const keys::AllowedKey* key_of(const Peer& peer) const;
  // Of whoever sent the message that on_message() is called with; empty outside of it, and where there is none
  // (ipc://).
  std::string sender_address() const;

  // Needed before anything uses Outbox::send_after(). The loop reads event_fd empty.
  void set_durability(DurabilityGate gate);
  // Stamped at each turn; outlives the loop.
  void set_health(metrics::Health* health);
  // Calls `on_readable` in the loop when fd is readable: for the worker's engine thread, the journal's reads, and
  // tests.
  void watch(int fd, std::function<void(Instant now, Outbox& out)> on_readable);
  void unwatch(int fd);

  // Until the service is drained after SIGTERM (base/shutdown.h), the deadline after it passes, or a second SIGTERM.
  // Messages that wait for the journal leave before the loop ends.
  void run(Duration drain_deadline);
  // run() returns after the present turn, without a drain: another process takes over.
  void end();
  // One turn: waits at most `wait` (and no longer than to the next tick) for something to do. run() is a loop around
  // it; tests and owners of a thread call it.
  void turn(Duration wait);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace optserve::transport

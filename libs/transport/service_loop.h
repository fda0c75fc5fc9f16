// The one loop that every ZeroMQ process runs: poll, decode, on_message / on_tick, flush. Owns the sockets; one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "metrics/metrics.h"
#include "transport/service.h"

namespace optserve::transport {

struct PortOptions {
  size_t message_bytes_max = 0;  // limits::kClientMessageBytesMax or kInternalMessageBytesMax
  int high_water_mark = 10'000;  // complete messages per peer and direction
};

// Says which of the messages waiting for the journal may leave.
struct DurabilityGate {
  int event_fd = -1;                  // becomes readable when durable() has moved
  std::function<uint64_t()> durable;  // the last sequence number on disk
};

class ServiceLoop {
 public:
  ServiceLoop(Service& service, const Clock& clock, Registry& metrics);
  ~ServiceLoop();
  ServiceLoop(const ServiceLoop&) = delete;
  ServiceLoop& operator=(const ServiceLoop&) = delete;

  // ROUTER with ROUTER_MANDATORY: unknown and slow peers are reported, nothing is dropped silently. Throws Error naming
  // the address. tcp://address:0 picks a port; bound_endpoint() tells.
  PortId bind(const std::string& endpoint, const PortOptions& options);
  // DEALER that reconnects by itself; messages for a peer that is not connected are undeliverable, not queued.
  PortId connect(const std::string& endpoint, const PortOptions& options);
  std::string bound_endpoint(PortId port) const;

  void set_durability(DurabilityGate gate);
  // Calls `on_readable` in the loop when fd is readable: for the worker's engine thread, the journal's reads, and
  // tests.
  void watch(int fd, std::function<void(Instant now, Outbox& out)> on_readable);

  // Until the service is drained after SIGTERM (base/shutdown.h), the deadline after it passes, or a second SIGTERM.
  // The loop's liveness stamp feeds /livez.
  void run(Duration drain_deadline);
  // One turn: waits at most `wait` for something to do. run() is a loop around it; tests call it.
  void turn(Duration wait);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace optserve::transport

// Notices a peer that stays silent, finds out why, and reports it in the log and in /readyz. Internal to the component.
#pragma once

#include <optional>
#include <string>

#include "metrics/health.h"
#include "transport/reachability.h"
#include "transport/zmq_port.h"

namespace optserve::transport {

class PeerWatch {
 public:
  // `port` and `health`, which may be null, outlive this object.
  PeerWatch(ZmqPort& port, metrics::Health* health) : port_(port), health_(health) {}

  // Called when something was received.
  void heard(Instant now);
  // Called with the reason why the peer does not let us in, which explains its silence.
  void not_let_in(const std::string& why) { not_let_in_ = why; }
  void on_tick(Instant now);

 private:
  void report(const Reachability& found, Instant now);

  ZmqPort& port_;
  metrics::Health* health_;
  std::optional<Instant> last_heard_;  // or the time when the watch began
  std::optional<BackgroundLook> look_;
  Instant next_look_{}, next_log_{};
  bool is_reported_ = false;
  std::string not_let_in_;
};

}  // namespace optserve::transport

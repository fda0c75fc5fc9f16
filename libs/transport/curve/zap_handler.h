// Answers libzmq's question at each handshake whether a key is allowed (ZAP, rfc.zeromq.org/spec/27). It is bound
// inside the process, and no message of an unknown key gets any further. Internal to the component.
#pragma once

#include <string>
#include <vector>
#include <zmq.hpp>

#include "base/clock.h"
#include "keys/process_keys.h"
#include "metrics/metrics.h"

namespace optserve::transport {

// The name by which libzmq asks about a port.
std::string zap_domain(keys::Door door);

class ZapHandler {
 public:
  // Must exist before the first port with keys is bound. `keys` outlives this object.
  ZapHandler(zmq::context_t& context, keys::ServerKeys& keys, metrics::Registry& registry);

  void* handle() { return socket_.handle(); }
  // Answers a limited number of waiting questions.
  void answer_waiting(Instant now);

 private:
  bool receive_question(std::vector<std::string>& frames);
  const keys::AllowedKey* look_up(const std::vector<std::string>& frames);
  void log_refusal(const std::vector<std::string>& frames, Instant now);

  keys::ServerKeys& keys_;
  zmq::socket_t socket_;
  metrics::Counter let_in_, refused_;
  Instant next_log_{};
  int64_t unlogged_ = 0;
};

}  // namespace optserve::transport

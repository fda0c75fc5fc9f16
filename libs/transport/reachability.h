// Why a peer cannot be reached. ZeroMQ connects again and again and never says what is wrong.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"

namespace optserve::transport {

struct Reachability {
  bool is_reachable = false;  // somebody accepts connections there
  bool is_refused = false;    // nobody listens, or there is no such name: an answer, not silence
  bool needs_ipv6 = false;    // only addresses of IPv6 answer; if none answers, only such addresses are known
  std::string why;            // "connection refused"; empty if it is reachable
};

// A queue with standby schedulers has several addresses, of which one is served at a time: "tcp://a:5555|tcp://b:5555".
std::vector<std::string> alternatives_of(const std::string& endpoint);

// What is known of the alternative that is reachable, or of all together if none is.
// Resolves the name of a "tcp://host:port" endpoint and, unless `limit` is zero, connects to its addresses, to each for
// at most `limit`. A silent name server can take longer. Endpoints of other kinds count as reachable.
Reachability look_at(const std::string& endpoint, Duration limit);

// look_at() in a thread of its own, which outlives this object if the name server is silent.
class BackgroundLook {
 public:
  BackgroundLook(const std::string& endpoint, Duration limit);
  // What was found, if it is there within `wait`.
  std::optional<Reachability> result(Duration wait) const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace optserve::transport

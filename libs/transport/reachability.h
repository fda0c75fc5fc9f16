// Why a peer cannot be reached. ZeroMQ retries forever and never says what is wrong.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"

namespace optserve::transport {

struct Reachability {
  bool is_reachable = false;  // somebody accepts connections there
  bool is_refused = false;    // nobody listens, or there is no such name: a definite answer, not silence
  bool needs_ipv6 = false;    // only IPv6 addresses answer or, if none answers, only such addresses are known
  std::string why;            // "connection refused"; empty if it is reachable
};

// A queue with standby schedulers has several addresses, of which one is served at a time: "tcp://a:5555|tcp://b:5555".
std::vector<std::string> alternatives_of(const std::string& endpoint);

// The result for the alternative that is reachable, or for all together if none is. Resolves the name of a
// "tcp://host:port" endpoint and, unless `limit` is zero, tries to connect to each of its addresses for at most
// `limit`. A silent name server can take longer. Endpoints of other kinds count as reachable.
Reachability look_at(const std::string& endpoint, Duration limit);

// Runs look_at() in a thread of its own, which outlives this object if the name server is silent.
class BackgroundLook {
 public:
  BackgroundLook(const std::string& endpoint, Duration limit);
  // The result, if it is there within `wait`.
  std::optional<Reachability> result(Duration wait) const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace optserve::transport

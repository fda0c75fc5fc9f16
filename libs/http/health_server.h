// /metrics, /livez, /readyz and /startupz: the routes, and the small server for them that every process has.
#pragma once

#include <memory>
#include <string>

#include "http/server.h"
#include "metrics/health.h"
#include "metrics/metrics.h"

namespace optserve::http {

// Adds the four routes to a server. The text of /metrics may be 0.2 s old. Registry and health outlive the server.
void add_health_routes(Server& server, const metrics::Registry& registry, const metrics::Health& health);

// Serves the four routes on a thread of its own. A peer has 5 s to send its request of at most 8 KiB, and 5 s to read
// the answer. Sixteen connections are served at a time; further ones wait in the backlog of the socket.
class HealthServer {
 public:
  // Port 0 picks a free one. Throws Error naming the address if it cannot listen.
  HealthServer(const std::string& address, int port, const metrics::Registry& registry, const metrics::Health& health);
  int port() const { return server_.port(); }

 private:
  Server server_;
};

}  // namespace optserve::http

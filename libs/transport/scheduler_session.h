// What every program that serves schedulers does around its service: it identifies itself, connects to each scheduler,
// and runs the loop.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "keys/key_options.h"
#include "metrics/health.h"
#include "metrics/metrics.h"
#include "transport/scheduler_link.h"
#include "transport/service_loop.h"

namespace optserve::transport {

// A Register with a new instance id, with this name or else that of the host and process, and with the build. The
// caller sets kind, models and capacity.
protocol::Register new_registration(const std::string& name = {});
// Throws Error unless these are 1 to limits::kSchedulersMax different endpoints.
void check_schedulers(const std::vector<std::string>& schedulers);
// The options for the connections that serve_scheduler() opens. Their seed is random, so that processes that start
// together do not all reconnect at the same moment. Throws as check_schedulers() does.
SchedulerLinkOptions link_options(const protocol::Register& hello, const std::vector<std::string>& schedulers);

// The keys for connections to these schedulers; nullptr if there are none. Throws ConfigurationError if a key cannot be
// read, or if a scheduler is on another machine and there are neither keys nor the permission to do without. A program
// calls this before it loads anything.
std::shared_ptr<keys::ClientKeys> load_keys(const keys::ClientKeyOptions& options,
                                            const std::vector<std::string>& schedulers);

struct SessionSettings {
  std::vector<std::string> schedulers;      // their service endpoints, in the order of the ports
  Duration drain_deadline{};                // how long a drain may take after SIGTERM
  std::function<void(ServiceLoop&)> watch;  // may add descriptors to the loop; may be empty
  std::shared_ptr<keys::ClientKeys> keys{};
  bool is_insecure = false;  // allows schedulers on other machines without keys
};
// Connects to all schedulers, marks the process as started, and runs until it is drained or told to stop. The metrics
// of a connection have the label port="scheduler-<index>". Throws Error.
void serve_scheduler(Service& service, const SessionSettings& settings, metrics::Registry& metrics,
                     metrics::Health& health);

}  // namespace optserve::transport

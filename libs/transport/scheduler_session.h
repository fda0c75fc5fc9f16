// What every program that serves a scheduler does around its service: how it names itself, and the loop over the one
// connection.
#pragma once

#include <functional>
#include <string>

#include "metrics/http_server.h"
#include "metrics/metrics.h"
#include "transport/scheduler_link.h"
#include "transport/service_loop.h"

namespace optserve::transport {

// A Register with a new instance id, and this process's name and build. Kind, models and capacity are the caller's.
protocol::Register new_registration();
// Of the connection that serve_scheduler() opens; peers that start together do not come back in step.
SchedulerLinkOptions link_options(const protocol::Register& hello);

struct SessionSettings {
  std::string scheduler;                    // its service endpoint
  Duration drain_deadline{};                // after SIGTERM
  std::function<void(ServiceLoop&)> watch;  // may add descriptors to the loop; may be empty
};
// Connects, says that the process has started, and runs until it is drained or told to stop. Throws Error.
void serve_scheduler(Service& service, const SessionSettings& settings, Registry& metrics, Health& health);

}  // namespace optserve::transport

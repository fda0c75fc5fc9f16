// The whole system as a gateway sees it, as metrics: for endpoint pickers and scalers, which ask gateways because only
// they speak HTTP.
#pragma once

#include <map>
#include <string>

#include "client/async_client.h"
#include "metrics/metrics.h"

namespace optserve::gateway {

class SystemMetrics {
 public:
  explicit SystemMetrics(metrics::Registry& registry);
  // With every status; models and schedulers that are not in it any more show 0.
  void update(const client::Answers<protocol::SystemStatus>& answers);

 private:
  struct OfModel {
    double waiting = 0, running = 0, used_slots = 0, slots = 0;
    metrics::Gauge waiting_gauge, running_gauge, usage_gauge;
  };
  OfModel& of_model(const std::string& name);

  metrics::Registry& registry_;
  metrics::Gauge answering_, silent_;
  std::map<std::string, OfModel> models_;
};

}  // namespace optserve::gateway

// What a server counts. Internal to the component. Used by the server's thread.
#pragma once

#include <map>
#include <string>
#include <utility>

#include "base/clock.h"
#include "metrics/metrics.h"

namespace optserve::http {

class ServerMetrics {
 public:
  explicit ServerMetrics(metrics::Registry* registry);  // nullptr: counts nothing

  // `route` is a pattern; empty: none matched.
  void count_request(const std::string& route, int status);
  void observe_first_byte(const std::string& route, Duration time);

  metrics::Gauge connections, streams;
  metrics::Counter received_bytes, sent_bytes;

 private:
  metrics::Registry* registry_;
  std::map<std::pair<std::string, int>, metrics::Counter> requests_;  // added when first seen: routes and codes are few
  std::map<std::string, metrics::Histogram> first_byte_;
};

}  // namespace optserve::http

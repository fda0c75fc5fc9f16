// The metrics of a server. Internal to the component, and used only by the server's thread.
#pragma once

#include <map>
#include <string>
#include <tuple>

#include "base/clock.h"
#include "metrics/metrics.h"

namespace optserve::http {

class ServerMetrics {
 public:
  explicit ServerMetrics(metrics::Registry* registry);  // nullptr: counts nothing

  // `route` is a pattern; empty if none matched.
  void count_request(const std::string& route, const std::string& method, int status, Duration time);
  void observe_first_byte(const std::string& route, Duration time);

  metrics::Gauge connections, streams;
  metrics::Counter received_bytes, sent_bytes;

 private:
  metrics::Registry* registry_;
  metrics::Histogram& histogram(std::map<std::string, metrics::Histogram>& of, const std::string& route,
                                const char* name, const char* help);

  // Counters are added when first needed: there are few routes, methods and codes.
  std::map<std::tuple<std::string, std::string, int>, metrics::Counter> requests_;
  std::map<std::string, metrics::Histogram> first_byte_, total_;
};

}  // namespace optserve::http

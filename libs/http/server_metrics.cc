#include "http/server_metrics.h"

#include <algorithm>
#include <chrono>
#include <vector>

namespace optserve::http {
namespace {

std::string label_of(const std::string& route) { return route.empty() ? "other" : route; }

// A client may write any word, so that only the known ones become labels.
std::string method_label(const std::string& method) {
  static const std::vector<std::string> kKnown{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"};
  return std::ranges::find(kKnown, method) == kKnown.end() ? "other" : method;
}

}  // namespace

ServerMetrics::ServerMetrics(metrics::Registry* registry) : registry_(registry) {
  if (registry == nullptr) return;
  connections = registry->gauge("optserve_http_connections", "Open connections of HTTP clients");
  streams = registry->gauge("optserve_http_streams", "Answers that are being sent in pieces");
  received_bytes = registry->counter("optserve_http_received_bytes_total", "Bytes received from HTTP clients");
  sent_bytes = registry->counter("optserve_http_sent_bytes_total", "Bytes of answers to HTTP clients, heads included");
}

metrics::Histogram& ServerMetrics::histogram(std::map<std::string, metrics::Histogram>& of, const std::string& route,
                                             const char* name, const char* help) {
  static const std::vector<double> kBuckets{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                            0.5,   1,      2.5,   5,    10,    30,   60,  300};
  auto [found, is_new] = of.try_emplace(route);
  if (is_new) found->second = registry_->histogram(name, help, kBuckets, {{"route", label_of(route)}});
  return found->second;
}

void ServerMetrics::count_request(const std::string& route, const std::string& method, int status, Duration time) {
  if (registry_ == nullptr) return;
  auto [found, is_new] = requests_.try_emplace({route, method_label(method), status});
  if (is_new) {
    found->second = registry_->counter(
        "optserve_http_requests_total", "HTTP requests that ended, by route and status; 499: the client left first",
        {{"route", label_of(route)}, {"method", method_label(method)}, {"code", std::to_string(status)}});
  }
  found->second.add();
  histogram(total_, route, "optserve_http_request_seconds",
            "From the first byte of an HTTP request to the end of its answer, streams included")
      .observe(std::chrono::duration<double>(time).count());
}

void ServerMetrics::observe_first_byte(const std::string& route, Duration time) {
  if (registry_ == nullptr) return;
  histogram(first_byte_, route, "optserve_http_first_byte_seconds",
            "From the end of an HTTP request to the first byte of its answer's body")
      .observe(std::chrono::duration<double>(time).count());
}

}  // namespace optserve::http

#include "http/server_metrics.h"

#include <chrono>
#include <vector>

namespace optserve::http {
namespace {

std::string label_of(const std::string& route) { return route.empty() ? "other" : route; }

}  // namespace

ServerMetrics::ServerMetrics(metrics::Registry* registry) : registry_(registry) {
  if (registry == nullptr) return;
  connections = registry->gauge("optserve_http_connections", "Open connections of HTTP clients");
  streams = registry->gauge("optserve_http_streams", "Answers that are being sent in pieces");
  received_bytes = registry->counter("optserve_http_received_bytes_total", "Bytes received from HTTP clients");
  sent_bytes = registry->counter("optserve_http_sent_bytes_total", "Bytes of answers to HTTP clients, heads included");
}

void ServerMetrics::count_request(const std::string& route, int status) {
  if (registry_ == nullptr) return;
  auto [found, is_new] = requests_.try_emplace({route, status});
  if (is_new) {
    found->second = registry_->counter("optserve_http_requests_total",
                                       "HTTP requests that ended, by route and status; 499: the client left first",
                                       {{"route", label_of(route)}, {"code", std::to_string(status)}});
  }
  found->second.add();
}

void ServerMetrics::observe_first_byte(const std::string& route, Duration time) {
  if (registry_ == nullptr) return;
  static const std::vector<double> kBuckets{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                            0.5,   1,      2.5,   5,    10,    30,   60,  300};
  auto [found, is_new] = first_byte_.try_emplace(route);
  if (is_new) {
    found->second = registry_->histogram("optserve_http_first_byte_seconds",
                                         "From the end of an HTTP request to the first byte of its answer's body",
                                         kBuckets, {{"route", label_of(route)}});
  }
  found->second.observe(std::chrono::duration<double>(time).count());
}

}  // namespace optserve::http

#include "http/health_server.h"

#include <memory>

#include "metrics/process_metrics.h"

namespace optserve::http {
namespace {

constexpr int64_t kTextAgeMaxMs = 200;

Answer yes_or_no(bool yes, const std::string& problem) {
  Answer answer{.status = yes ? 200 : 503, .body = (yes ? "ok" : problem) + "\n"};
  answer.headers.set("Cache-Control", "no-store");
  return answer;
}

Answer live(const metrics::Health& health) {
  const int64_t stamped = health.alive_at_ms.load(std::memory_order_relaxed);
  if (stamped == 0) return {.body = "starting\n", .headers = {{"Cache-Control", "no-store"}}};
  const int64_t age = health.now_ms() - stamped;
  return yes_or_no(age <= health.alive_within_ms, "main loop has not turned for " + std::to_string(age) +
                                                      " ms, at most " + std::to_string(health.alive_within_ms) +
                                                      " ms are allowed");
}

Answer started(const metrics::Health& health) {
  const std::string progress = health.load_progress();
  return yes_or_no(health.started.load(), "not started yet" + (progress.empty() ? "" : ": " + progress));
}

Answer ready(const metrics::Health& health) {
  if (!health.started.load()) return started(health);
  const std::string problem = health.problem();
  return yes_or_no(health.ready.load(), "not ready for work" + (problem.empty() ? "" : ": " + problem));
}

// The text of all metrics, which is made again only when the last one is old.
class MetricsText {
 public:
  MetricsText(const metrics::Registry& registry, const metrics::Health& health)
      : registry_(registry), health_(health) {}

  Answer answer() {
    const int64_t now = health_.now_ms();
    if (text_.empty() || now - made_at_ms_ >= kTextAgeMaxMs) {
      text_ = registry_.text() + metrics::process_metrics_text();
      made_at_ms_ = now;
    }
    return {.content_type = "text/plain; version=0.0.4; charset=utf-8",
            .body = text_,
            .headers = {{"Cache-Control", "no-store"}}};
  }

 private:
  const metrics::Registry& registry_;
  const metrics::Health& health_;
  std::string text_;
  int64_t made_at_ms_ = 0;
};

ServerOptions options_of(const std::string& address, int port) {
  ServerOptions options{.address = address, .port = port};
  options.limits.head = {.target_bytes_max = 2 << 10, .head_bytes_max = 8 << 10, .fields_max = 64};
  options.limits.connections_max = 16;
  options.limits.request_timeout = options.limits.idle_timeout = options.limits.answer_timeout = seconds(5);
  return options;
}

ServerHooks hooks_of_health() {
  ServerHooks hooks;
  hooks.error_answer = [](const Request*, int status, std::string_view message) {
    if (status == 404) message = "not found; there are /metrics /livez /readyz /startupz";
    return Answer{.status = status, .body = std::string(message) + "\n"};
  };
  return hooks;
}

}  // namespace

void add_health_routes(Server& server, const metrics::Registry& registry, const metrics::Health& health) {
  server.route("GET", "/livez",
               [&health](const std::shared_ptr<Exchange>& exchange) { exchange->answer(live(health)); });
  server.route("GET", "/readyz",
               [&health](const std::shared_ptr<Exchange>& exchange) { exchange->answer(ready(health)); });
  server.route("GET", "/startupz",
               [&health](const std::shared_ptr<Exchange>& exchange) { exchange->answer(started(health)); });
  server.route("GET", "/metrics",
               [text = std::make_shared<MetricsText>(registry, health)](const std::shared_ptr<Exchange>& exchange) {
                 exchange->answer(text->answer());
               });
}

HealthServer::HealthServer(const std::string& address, int port, const metrics::Registry& registry,
                           const metrics::Health& health)
    : server_(options_of(address, port), health.clock, hooks_of_health()) {
  add_health_routes(server_, registry, health);
  server_.start();
}

}  // namespace optserve::http

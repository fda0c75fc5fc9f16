#include "gateway/service/request_hooks.h"

#include <algorithm>
#include <chrono>

#include "base/ids.h"
#include "base/input_check.h"
#include "base/log.h"
#include "base/trace_context.h"
#include "gateway/service/answers.h"

namespace optserve::gateway {
namespace {

constexpr size_t kRequestIdBytesMax = 128;

// The id that the client gave, if it may stand in logs, answers and names of jobs; otherwise a random one.
std::string request_id(const http::Request& request) {
  const std::string_view given = request.headers.get("x-request-id");
  if (!given.empty() && given.size() <= kRequestIdBytesMax && is_name(given)) return std::string(given);
  return Id128::random().hex();
}

class Cors {
 public:
  explicit Cors(std::vector<std::string> origins) : origins_(std::move(origins)) {}

  bool is_preflight(const http::Request& request) const {
    return request.method == "OPTIONS" && request.headers.find("Access-Control-Request-Method") != nullptr &&
           allows(request);
  }
  void add_headers(const http::Request& request, http::Headers& headers) const {
    if (origins_.empty()) return;
    headers.add("Vary", "Origin");
    if (!allows(request)) return;
    headers.set("Access-Control-Allow-Origin", request.headers.get("Origin"));
    headers.set("Access-Control-Expose-Headers",
                "x-request-id, traceparent, retry-after, retry-after-ms, x-should-retry");
  }
  http::Answer preflight_answer(const http::Request& request) const {
    http::Answer answer{.status = 204, .content_type = "", .body = ""};
    answer.headers.set("Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS");
    const std::string_view wanted = request.headers.get("Access-Control-Request-Headers");
    if (!wanted.empty()) answer.headers.set("Access-Control-Allow-Headers", wanted);
    answer.headers.set("Access-Control-Max-Age", "600");
    return answer;
  }

 private:
  bool allows(const http::Request& request) const {
    const std::string* origin = request.headers.find("Origin");
    return origin != nullptr &&
           std::ranges::any_of(origins_, [&](const std::string& one) { return one == "*" || one == *origin; });
  }

  std::vector<std::string> origins_;
};

double milliseconds_of(Duration time) { return std::chrono::duration<double, std::milli>(time).count(); }

void log_request(const http::Finished& finished) {
  const http::Request& request = finished.request;
  log_info("request", {{"id", request.id},
                       {"peer", request.peer},
                       {"method", request.method},
                       {"path", request.target.path},
                       {"status", finished.status},
                       {"complete", finished.is_complete ? "yes" : "no"},
                       {"bytes", finished.body_bytes},
                       {"first_byte_ms", milliseconds_of(finished.first_byte)},
                       {"total_ms", milliseconds_of(finished.total)},
                       {"key", request.note("key")},
                       {"tenant", request.note("tenant")},
                       {"job", request.note("job")},
                       trace_field(request.note("traceparent"))});
}

}  // namespace

http::ServerHooks request_hooks(std::vector<std::string> cors_origins, Access& access, const Clock& clock) {
  const auto cors = std::make_shared<Cors>(std::move(cors_origins));
  http::ServerHooks hooks;
  hooks.on_request = [cors, &access, &clock](http::Request& request) -> std::optional<http::Answer> {
    request.id = request_id(request);
    if (auto trace = read_traceparent(request.headers.get("traceparent"))) request.note("traceparent", *trace);
    if (cors->is_preflight(request)) return cors->preflight_answer(request);
    if (const auto error = access.check(request, clock.now(), clock.wall_ms())) return error_answer(*error);
    return std::nullopt;
  };
  hooks.add_headers = [cors](const http::Request* request, http::Headers& headers) {
    const bool is_known = request != nullptr && !request->id.empty();
    headers.set("x-request-id", is_known ? request->id : Id128::random().hex());
    if (request == nullptr) return;
    if (const std::string_view trace = request->note("traceparent"); !trace.empty()) headers.set("traceparent", trace);
    cors->add_headers(*request, headers);
  };
  hooks.error_answer = server_error_answer;
  hooks.on_finished = log_request;
  return hooks;
}

}  // namespace optserve::gateway

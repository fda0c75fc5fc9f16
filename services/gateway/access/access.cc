#include "gateway/access/access.h"

#include <algorithm>
#include <array>

#include "base/input_check.h"

namespace optserve::gateway {
namespace {

constexpr int64_t kTooManyJobsRetryMs = 2'000;

enum class Need { kNothing, kAnyKey, kSubmit, kOperate };

// A route that is not named here needs the right to submit, unless it only reads.
Need need_of(const http::Request& request, bool is_metrics_open) {
  constexpr std::array kOpen = {"/health", "/version", "/api/version", "/openapi.json",
                                "/livez",  "/readyz",  "/startupz",    "/ui/{file...}"};
  const std::string_view route = request.route;
  if (std::ranges::find(kOpen, route) != kOpen.end()) return Need::kNothing;
  if (route == "/metrics") return is_metrics_open ? Need::kNothing : Need::kOperate;
  constexpr std::array kHarmless = {"/tokenize",
                                    "/detokenize",
                                    "/v1/jobs/{id}/cancel",
                                    "/v1/groups/{name}/cancel",
                                    "/v1/batches/{id}/cancel",
                                    "/v1/responses/{id}/cancel",
                                    "/v1/responses/{id}",
                                    "/api/show"};
  const bool is_harmless = std::ranges::find(kHarmless, route) != kHarmless.end();
  if (is_harmless || request.method == "GET" || request.method == "HEAD") return Need::kAnyKey;
  const bool deletes_jobs = request.method == "DELETE" && route.starts_with("/v1/jobs");
  if (deletes_jobs || route == "/v1/queue" || route == "/v1/jobs/{id}/requeue") return Need::kOperate;
  return Need::kSubmit;
}

http_api::ApiError no_key(std::string_view message) {
  http_api::ApiError error = http_api::invalid_api_key();
  error.message = message;
  return error;
}

// The token of "Authorization: Bearer TOKEN"; empty: there is none, or it is not clear which.
std::string_view bearer_token(const http::Headers& headers) {
  constexpr std::string_view kScheme = "Bearer ";
  if (headers.count("Authorization") != 1) return {};
  const std::string_view value = headers.get("Authorization");
  if (!http::equal_ignoring_case(value.substr(0, kScheme.size()), kScheme)) return {};
  return http::trimmed(value.substr(kScheme.size()));
}

}  // namespace

http_api::Caller caller_of(const http::Request& request) {
  if (request.note("key").empty()) return {};
  return {.tenant = std::string(request.note("tenant")), .may_operate = request.note("operator") == "yes"};
}

void Access::set_keys(std::vector<ApiKey> keys) {
  std::map<std::string, std::shared_ptr<KeyUse>, std::less<>> uses;
  for (const ApiKey& key : keys) {
    const auto before = uses_.find(key.id);
    uses[key.id] = before == uses_.end() ? std::make_shared<KeyUse>() : before->second;
  }
  keys_ = std::move(keys);
  uses_ = std::move(uses);
}

std::optional<http_api::ApiError> Access::check(http::Request& request, Instant now, int64_t wall_ms) {
  const Need need = need_of(request, is_metrics_open_);
  if (!has_keys_ || need == Need::kNothing) return std::nullopt;
  if (request.headers.find("Authorization") == nullptr) {
    return no_key("An API key is needed, in the header 'Authorization: Bearer KEY'.");
  }
  const ApiKey* key = find_api_key(keys_, bearer_token(request.headers), wall_ms);
  if (key == nullptr) return no_key("The API key is not known, or has expired.");
  request.note("key", key->id);
  request.note("tenant", key->tenant);
  if (key->may_operate) request.note("operator", "yes");
  KeyUse& use = *uses_.at(key->id);
  if (key->requests_per_minute > 0) {
    const int64_t wait_ms = use.requests.take(key->requests_per_minute, now);
    if (wait_ms > 0) {
      return http_api::rate_limited(
          "The API key may send " + std::to_string(key->requests_per_minute) + " requests a minute.", wait_ms);
    }
  }
  if (need == Need::kOperate && !key->may_operate) return http_api::forbidden("The API key may not operate the queue.");
  if (need != Need::kSubmit) return std::nullopt;
  if (!key->may_submit) return http_api::forbidden("The API key may look and operate, but not submit.");
  if (key->jobs_max == 0 || use.open_jobs < key->jobs_max) return std::nullopt;
  return http_api::rate_limited("The API key has " + std::to_string(key->jobs_max) + " open jobs, as many as it may.",
                                kTooManyJobsRetryMs);
}

http_api::Parsed<std::shared_ptr<OpenJobs>> Access::open_jobs(const http::Request& request, size_t count) {
  const ApiKey* key = key_of(request);
  if (key == nullptr || key->jobs_max == 0) return std::make_shared<OpenJobs>();
  const std::shared_ptr<KeyUse>& use = uses_.at(key->id);
  const auto wanted = static_cast<int64_t>(count);
  if (wanted > key->jobs_max) {
    return http_api::invalid_value("", "The request is of " + std::to_string(wanted) +
                                           " jobs, and the API key may have " + std::to_string(key->jobs_max) +
                                           " open ones at a time");
  }
  if (use->open_jobs + wanted > key->jobs_max) {
    return http_api::rate_limited("The API key may have " + std::to_string(key->jobs_max) +
                                      " open jobs, and the request would make more of them.",
                                  kTooManyJobsRetryMs);
  }
  return std::make_shared<OpenJobs>(use, wanted);
}

const ApiKey* Access::key_of(const http::Request& request) const {
  const auto found = std::ranges::find(keys_, request.note("key"), &ApiKey::id);
  return found == keys_.end() ? nullptr : &*found;
}

}  // namespace optserve::gateway

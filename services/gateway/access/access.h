// Who may do what: decides about each request by its key, before its body is read. Belongs to the HTTP server's thread.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "gateway/access/api_key.h"
#include "gateway/access/key_use.h"
#include "http/message/request.h"
#include "http_api/jobs/caller.h"
#include "http_api/openai/api_error.h"

namespace optserve::gateway {

// Of a request that Access has let in.
http_api::Caller caller_of(const http::Request& request);

class Access {
 public:
  // Without keys every request is let in.
  explicit Access(bool has_keys, bool is_metrics_open = true)
      : has_keys_(has_keys), is_metrics_open_(is_metrics_open) {}

  // Replaces all keys. What a key has used stays with its id.
  void set_keys(std::vector<ApiKey> keys);
  // nullopt: the request may go on, and caller_of() knows whose it is. The request's notes `key` and `tenant` name the
  // key's id and tenant.
  std::optional<http_api::ApiError> check(http::Request& request, Instant now, int64_t wall_ms);
  // Counts jobs as open for the key of a request, or refuses them if these would be too many at a time.
  http_api::Parsed<std::shared_ptr<OpenJobs>> open_jobs(const http::Request& request, size_t count);

 private:
  const ApiKey* key_of(const http::Request& request) const;

  const bool has_keys_, is_metrics_open_;
  std::vector<ApiKey> keys_;
  std::map<std::string, std::shared_ptr<KeyUse>, std::less<>> uses_;  // by id
};

}  // namespace optserve::gateway

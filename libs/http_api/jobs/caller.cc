#include "http_api/jobs/caller.h"

#include "base/input_check.h"

namespace optserve::http_api {

Parsed<std::string> Caller::tenant_for(std::string_view named) const {
  if (named.empty()) return tenant;
  if (may_operate || named == tenant) return std::string(named);
  ApiError error = forbidden("tenant is " + found_text(named) + ", and the API key belongs to another one");
  error.param = "tenant";
  return error;
}

}  // namespace optserve::http_api

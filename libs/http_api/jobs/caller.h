// On whose behalf a request is served.
#pragma once

#include <string>
#include <string_view>

#include "http_api/openai/api_error.h"

namespace optserve::http_api {

struct Caller {
  std::string tenant{};     // of the key; empty if there are no keys, so that a request names its own
  bool may_operate = true;  // may also see the jobs of all tenants

  // Whether the caller may know of a job of this tenant.
  bool may_see(std::string_view job_tenant) const { return may_operate || job_tenant == tenant; }
  // The tenant of a request that names `named` (may be empty); an error if that is another one's.
  Parsed<std::string> tenant_for(std::string_view named) const;
};

}  // namespace optserve::http_api

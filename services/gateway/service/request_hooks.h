// What applies to every request of the gateway: an id, the rules of browsers, the check of its key, errors in OpenAI's
// form, a line in the log.
#pragma once

#include <string>
#include <vector>

#include "base/clock.h"
#include "gateway/access/access.h"
#include "http/server.h"

namespace optserve::gateway {

// `access` and `clock` outlive the server.
http::ServerHooks request_hooks(std::vector<std::string> cors_origins, Access& access, const Clock& clock);

}  // namespace optserve::gateway

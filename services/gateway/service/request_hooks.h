// What every request of the gateway gets: an id, rules of browsers, whether its key may do this, errors in OpenAI's
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

// What every request of the gateway gets: an id, rules of browsers, errors in OpenAI's form, a line in the log.
#pragma once

#include <string>
#include <vector>

#include "http/server.h"

namespace optserve::gateway {

http::ServerHooks request_hooks(std::vector<std::string> cors_origins);

}  // namespace optserve::gateway

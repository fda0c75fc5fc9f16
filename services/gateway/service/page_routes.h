// `/ui`: the page on which people try prompts and look at the queue. It uses the API as every other client does.
#pragma once

#include "http/server.h"

namespace optserve::gateway {

void add_page_routes(http::Server& server);

}  // namespace optserve::gateway

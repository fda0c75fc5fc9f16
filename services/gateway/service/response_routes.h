// `POST /v1/responses`, and what is done with a response later: retrieve, follow, cancel, delete.
#pragma once

#include "gateway/service/gateway_parts.h"

namespace optserve::gateway {

void add_response_routes(const GatewayParts& parts);

}  // namespace optserve::gateway

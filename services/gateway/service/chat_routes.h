// `POST /v1/chat/completions`.
#pragma once

#include "gateway/service/gateway_parts.h"

namespace optserve::gateway {

void add_chat_routes(const GatewayParts& parts);

}  // namespace optserve::gateway

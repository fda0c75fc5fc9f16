// Ollama's routes: /api/version, /api/tags, /api/ps, /api/generate and /api/chat.
#pragma once

#include "gateway/service/gateway_parts.h"

namespace optserve::gateway {

void add_ollama_routes(const GatewayParts& parts);

}  // namespace optserve::gateway

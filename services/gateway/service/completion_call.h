// `POST /v1/completions`: one request, from its jobs to its answer.
#pragma once

#include <memory>

#include "gateway/service/gateway_parts.h"
#include "http/exchange.h"

namespace optserve::gateway {

inline constexpr size_t kCompletionBodyBytesMax = 4 << 20;

void serve_completion(const GatewayParts& parts, const std::shared_ptr<http::Exchange>& exchange);

}  // namespace optserve::gateway

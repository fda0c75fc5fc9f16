// Completions of OpenAI's and of Metaseq's API: one request, from its jobs to its answer.
#pragma once

#include <memory>

#include "gateway/service/gateway_parts.h"
#include "http/exchange.h"

namespace optserve::gateway {

inline constexpr size_t kCompletionBodyBytesMax = 4 << 20;

// POST /v1/completions
void serve_completion(const GatewayParts& parts, const std::shared_ptr<http::Exchange>& exchange);
// POST /completions, /generate and /engines/{name}/completions
void serve_metaseq(const GatewayParts& parts, const std::shared_ptr<http::Exchange>& exchange);

}  // namespace optserve::gateway

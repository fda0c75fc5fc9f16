// `GET /v1/jobs/{id}/events`: follows a job for as long as its client listens. The job does not depend on it.
#pragma once

#include <memory>

#include "base/ids.h"
#include "gateway/service/gateway_parts.h"
#include "http/exchange.h"

namespace optserve::gateway {

void serve_job_events(const GatewayParts& parts, const std::shared_ptr<http::Exchange>& exchange, const JobId& job);

}  // namespace optserve::gateway

// Follows a job for as long as its client listens. The job does not depend on it.
#pragma once

#include <memory>

#include "base/ids.h"
#include "gateway/service/gateway_parts.h"
#include "http/exchange.h"
#include "http_api/jobs/job_events.h"

namespace optserve::gateway {

// Server-sent events in this form, of the text from byte `offset` on.
void follow_job(const GatewayParts& parts, const std::shared_ptr<http::Exchange>& exchange, const JobId& job,
                uint64_t offset, std::unique_ptr<http_api::FollowForm> form);
// GET /v1/jobs/{id}/events
void serve_job_events(const GatewayParts& parts, const std::shared_ptr<http::Exchange>& exchange, const JobId& job);

}  // namespace optserve::gateway

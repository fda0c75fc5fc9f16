// The routes of the jobs API: submit, look, cancel, requeue, follow, list, groups, and the state of the queue.
#pragma once

#include "gateway/service/gateway_parts.h"

namespace optserve::gateway {

void add_job_routes(const GatewayParts& parts);

}  // namespace optserve::gateway

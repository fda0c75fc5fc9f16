// `GET /v1/jobs/{id}/record`: everything that is known about one job, for people who look at it.
#pragma once

#include "gateway/service/gateway_parts.h"

namespace optserve::gateway {

void add_record_route(const GatewayParts& parts);

}  // namespace optserve::gateway

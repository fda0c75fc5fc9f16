// The table of the fields of a job in `POST /v1/jobs`: those of JobSpec, under their names on the wire.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "http_api/openai/request_fields.h"
#include "protocol/message_types.h"

namespace optserve::http_api {

const FieldTable& job_fields();

// Sets the fields of `job` that a checked object has.
std::optional<ApiError> read_job_fields(const nlohmann::json& object, protocol::JobSpec& job);

}  // namespace optserve::http_api

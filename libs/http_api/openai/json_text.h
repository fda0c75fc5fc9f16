// JSON values as text.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "job_json/job_json.h"

namespace optserve::http_api {

using job_json::json_text;
inline std::string json_string(std::string_view text) { return json_text(nlohmann::ordered_json(text)); }

// A log-probability as a number: minus infinity, which JSON does not have, becomes -9999, as in vLLM.
inline double json_logprob(float logprob) { return logprob < -9999.0f ? -9999.0 : static_cast<double>(logprob); }

}  // namespace optserve::http_api

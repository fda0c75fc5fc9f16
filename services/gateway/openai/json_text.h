// JSON values as text.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace optserve::gateway {

// One line without a line feed; bytes that are not UTF-8 are replaced.
inline std::string json_text(const nlohmann::ordered_json& value) {
  return value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}
inline std::string json_string(std::string_view text) { return json_text(nlohmann::ordered_json(text)); }

// A log-probability as a number: minus infinity, which JSON does not have, is -9999 as in vLLM.
inline double json_logprob(float logprob) { return logprob < -9999.0f ? -9999.0 : static_cast<double>(logprob); }

}  // namespace optserve::gateway

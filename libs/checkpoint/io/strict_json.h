// JSON from outside, read strictly: valid UTF-8, no duplicate keys, limited depth, at most a million values, nothing
// after the value.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "base/error.h"

namespace optserve::checkpoint {

// `what` names the text in messages. Nesting beyond `depth_max` (a flat object has depth 1) is refused.
Result<nlohmann::json> parse_json_strict(std::string_view text, std::string_view what, int depth_max);

}  // namespace optserve::checkpoint

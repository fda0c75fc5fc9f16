// UTC times as RFC 3339 writes them, to the second: "2026-01-31T23:59:59Z".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace optserve {

// Of a time in seconds since 1970. Years beyond 9999 have more digits.
std::string rfc3339_text(int64_t time);
// Seconds since 1970 of a text in exactly this form; nullopt if it is not one, or before 1970.
std::optional<int64_t> parse_rfc3339(std::string_view text);

}  // namespace optserve

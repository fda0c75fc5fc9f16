// The target of a request: "/v1/jobs/a%20b?limit=5" as decoded parts of its path and of its query.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace optserve::http {

struct Target {
  std::string path;                   // as it was sent, without the query
  std::vector<std::string> segments;  // between the slashes, decoded: "/v1/jobs/a%20b" is v1, jobs, "a b"
  std::vector<std::pair<std::string, std::string>> query;  // in order, decoded
};

// Takes "/path?query", "http://host/path?query" and "*". nullopt if the text is none of these, or if an escape is not
// two hexadecimal digits or stands for a zero byte.
std::optional<Target> parse_target(std::string_view text);

// Decodes each %XX and, if `is_query`, replaces each plus by a space.
std::optional<std::string> percent_decoded(std::string_view text, bool is_query);

}  // namespace optserve::http

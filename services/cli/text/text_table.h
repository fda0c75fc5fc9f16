// Small pieces of text that several commands print.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace optserve::cli {

using TextRow = std::vector<std::string>;

// Columns as wide as their widest cell; the first row is the heading.
std::string text_table(const std::vector<TextRow>& rows);
// One line of JSON; bytes that are not UTF-8 are replaced.
std::string json_line(const nlohmann::ordered_json& value);
// "850 ms", "12 s", "5 min" or "3 h", rounded down.
std::string duration_text(int64_t ms);
// "2026-01-31 23:59:59", in UTC.
std::string utc_text(int64_t wall_ms);

}  // namespace optserve::cli

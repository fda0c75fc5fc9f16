#include "cli/text/text_table.h"

#include <algorithm>
#include <array>
#include <ctime>

#include "job_json/job_json.h"

namespace optserve::cli {

std::string text_table(const std::vector<TextRow>& rows) {
  std::vector<size_t> widths(rows.front().size(), 0);
  for (const TextRow& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const TextRow& row : rows) {
    std::string one;
    for (size_t i = 0; i < row.size(); ++i) one += row[i] + std::string(widths[i] - row[i].size() + 2, ' ');
    text += one.substr(0, one.find_last_not_of(' ') + 1) + "\n";
  }
  return text;
}

std::string json_line(const nlohmann::ordered_json& value) { return job_json::json_text(value) + "\n"; }

std::string duration_text(int64_t ms) {
  constexpr int64_t kSecond = 1'000, kMinute = 60 * kSecond, kHour = 60 * kMinute;
  if (ms < kSecond) return std::to_string(ms) + " ms";
  if (ms < 2 * kMinute) return std::to_string(ms / kSecond) + " s";
  if (ms < 2 * kHour) return std::to_string(ms / kMinute) + " min";
  return std::to_string(ms / kHour) + " h";
}

std::string utc_text(int64_t wall_ms) {
  const std::time_t seconds = wall_ms / 1'000;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  std::array<char, 32> text{};
  return {text.data(), std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S", &parts)};
}

}  // namespace optserve::cli

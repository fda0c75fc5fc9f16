#include "audit/audit_record.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/utf8.h"

namespace optserve::audit {
namespace {

using Json = nlohmann::ordered_json;
using std::chrono::milliseconds;

constexpr std::array kOutcomes = {Outcome::kBegun, Outcome::kDone, Outcome::kRefused};
constexpr int64_t kWallMsMax = 253'402'300'799'999;  // the end of the year 9999
constexpr int kLevelsMax = 4;                        // of objects and lists in a line

// The bytes that a text may have, without half a character at the end. Before a byte that is no UTF-8 nothing is cut.
std::string cut(std::string_view text) {
  if (text.size() <= kTextBytesMax) return std::string(text);
  text = text.substr(0, kTextBytesMax);
  for (size_t back = 1; back <= 3; ++back) {
    if (is_incomplete_utf8(text.substr(text.size() - back))) {
      text.remove_suffix(back);
      break;
    }
  }
  return std::string(text);
}

std::string ascii_json(const Json& value) {
  constexpr int kOneLine = -1;
  constexpr bool kAsciiOnly = true;
  return value.dump(kOneLine, ' ', kAsciiOnly, Json::error_handler_t::replace);
}

std::optional<int> number_at(std::string_view text, size_t at, size_t digits) {
  int value = 0;
  for (const char c : text.substr(at, digits)) {
    if (c < '0' || c > '9') return std::nullopt;
    value = 10 * value + (c - '0');
  }
  return value;
}

// Of time_text() and nothing else.
std::optional<int64_t> parse_time(std::string_view text) {
  constexpr std::string_view kShape = "0000-00-00T00:00:00.000Z";
  if (text.size() != kShape.size()) return std::nullopt;
  for (size_t i = 0; i < text.size(); ++i) {
    if (kShape[i] != '0' && text[i] != kShape[i]) return std::nullopt;
  }
  const auto year = number_at(text, 0, 4), month = number_at(text, 5, 2), day = number_at(text, 8, 2);
  const auto hour = number_at(text, 11, 2), minute = number_at(text, 14, 2), second = number_at(text, 17, 2);
  const auto millisecond = number_at(text, 20, 3);
  if (!year || !month || !day || !hour || !minute || !second || !millisecond) return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year(*year), std::chrono::month(static_cast<unsigned>(*month)),
                                         std::chrono::day(static_cast<unsigned>(*day))};
  if (*year < 1970 || !date.ok() || *hour > 23 || *minute > 59 || *second > 59) return std::nullopt;
  const milliseconds of_day = std::chrono::hours(*hour) + std::chrono::minutes(*minute) +
                              std::chrono::seconds(*second) + milliseconds(*millisecond);
  return (std::chrono::sys_days(date).time_since_epoch() + of_day) / milliseconds(1);
}

Refusal no_record(const std::string& why) { return refuse(ErrorCode::kDataCorrupt, "not an audit record: " + why); }

}  // namespace

std::string_view outcome_name(Outcome outcome) {
  switch (outcome) {
    case Outcome::kBegun:
      return "begun";
    case Outcome::kRefused:
      return "refused";
    case Outcome::kDone:
      break;
  }
  return "done";
}

std::string time_text(int64_t wall_ms) {
  const std::chrono::sys_time<milliseconds> time{milliseconds(std::clamp<int64_t>(wall_ms, 0, kWallMsMax))};
  const auto days = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date(days);
  const std::chrono::hh_mm_ss clock(time - days);
  std::array<char, 48> text{};
  const int size =
      std::snprintf(text.data(), text.size(), "%04d-%02u-%02uT%02d:%02d:%02d.%03dZ", static_cast<int>(date.year()),
                    static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                    static_cast<int>(clock.hours().count()), static_cast<int>(clock.minutes().count()),
                    static_cast<int>(clock.seconds().count()), static_cast<int>(clock.subseconds().count()));
  return {text.data(), static_cast<size_t>(size)};
}

std::string line_of(const Record& record) {
  Json line = {{"time", time_text(record.wall_ms)}, {"action", cut(record.action)}, {"object", cut(record.object)}};
  line["outcome"] = outcome_name(record.outcome);
  line["reason"] = cut(record.reason);
  line["key"] = cut(record.key);
  line["tenants"] = cut(record.tenants);
  line["peer"] = cut(record.peer);
  line["scheduler"] = cut(record.scheduler);
  if (record.left_out > 0) line["left_out"] = record.left_out;
  return ascii_json(line) + "\n";
}

Result<Record> parse_line(std::string_view line) {
  if (line.size() > kLineBytesMax) return no_record("the line is too long");
  const auto bounded = [](int depth, Json::parse_event_t, Json&) {
    return depth <= kLevelsMax;  // deeper ones are dropped, so no destructor recurses far
  };
  const Json object = Json::parse(line, bounded, false);
  if (!object.is_object()) return no_record("expected a JSON object");
  const auto text = [&](const char* name) -> std::optional<std::string> {
    const auto found = object.find(name);
    if (found == object.end() || !found->is_string()) return std::nullopt;
    return found->get<std::string>();
  };
  Record record;
  const auto time = text("time"), action = text("action"), outcome = text("outcome");
  const std::optional<int64_t> wall_ms = time ? parse_time(*time) : std::nullopt;
  if (!wall_ms) return no_record("time: expected one like 2026-01-31T23:59:59.123Z");
  if (!action || action->empty()) return no_record("action: expected a word");
  const auto meant =
      std::ranges::find_if(kOutcomes, [&](Outcome one) { return outcome && *outcome == outcome_name(one); });
  if (meant == kOutcomes.end()) return no_record("outcome: expected begun, done or refused");
  record.wall_ms = *wall_ms;
  record.action = *action;
  record.outcome = *meant;
  record.object = text("object").value_or("");
  record.reason = text("reason").value_or("");
  record.key = text("key").value_or("");
  record.tenants = text("tenants").value_or("");
  record.peer = text("peer").value_or("");
  record.scheduler = text("scheduler").value_or("");
  const auto left_out = object.find("left_out");
  if (left_out != object.end() && left_out->is_number_unsigned()) record.left_out = left_out->get<uint64_t>();
  return record;
}

std::string shown(std::string_view text) {
  const std::string quoted = ascii_json(Json(text));
  std::string bare = quoted.substr(1, quoted.size() - 2);
  // What JSON escapes for its own sake only.
  for (size_t at = 0; (at = bare.find('\\', at)) != std::string::npos; ++at) {
    if (bare[at + 1] == '"') {
      bare.erase(at, 1);
    } else if (bare[at + 1] == '\\') {
      ++at;  // stays doubled, so that what follows is not taken for an escape
    }
  }
  return bare;
}

}  // namespace optserve::audit

#include "audit/audit_record.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/utc_time.h"
#include "base/utf8.h"

namespace optserve::audit {
namespace {

using Json = nlohmann::ordered_json;

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

// Of time_text() and nothing else.
std::optional<int64_t> parse_time(std::string_view text) {
  constexpr size_t kSecondsEnd = 19, kSize = 24;
  if (text.size() != kSize || text[kSecondsEnd] != '.' || text.back() != 'Z') return std::nullopt;
  const auto whole = parse_rfc3339(std::string(text.substr(0, kSecondsEnd)) + "Z");
  if (!whole) return std::nullopt;
  int milliseconds = 0;
  for (const char c : text.substr(kSecondsEnd + 1, 3)) {
    if (c < '0' || c > '9') return std::nullopt;
    milliseconds = 10 * milliseconds + (c - '0');
  }
  return *whole * 1'000 + milliseconds;
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
  wall_ms = std::clamp<int64_t>(wall_ms, 0, kWallMsMax);
  std::string text = rfc3339_text(wall_ms / 1'000);
  const std::string thousandths = std::to_string(1'000 + wall_ms % 1'000).substr(1);
  text.insert(text.size() - 1, "." + thousandths);
  return text;
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

#include "checkpoint/staging/staging_record.h"

#include <nlohmann/json.hpp>

#include "base/sha256.h"
#include "checkpoint/io/strict_json.h"

namespace optserve::checkpoint {
namespace {

using nlohmann::json;

constexpr size_t kRecordBytesMax = 16 << 20;
constexpr int kDepthMax = 8;
constexpr size_t kShownMax = 100;  // of one value in a message

std::string shown(const json& object, const std::string& key) {
  if (!object.contains(key)) return "nothing";
  const std::string text = object[key].dump(-1, ' ', false, json::error_handler_t::replace);
  return text.size() <= kShownMax ? text : text.substr(0, kShownMax) + "...";
}

// Nested objects are compared as well, so that a message names the one value that differs.
void add_differences(const json& found, const json& expected, const std::string& prefix, std::string& text) {
  json keys = found;
  keys.update(expected);
  for (const auto& [key, value] : keys.items()) {
    if (found.contains(key) && expected.contains(key) && found[key] == expected[key]) continue;
    if (found.contains(key) && expected.contains(key) && found[key].is_object() && expected[key].is_object()) {
      add_differences(found[key], expected[key], prefix + key + ".", text);
      continue;
    }
    text += (text.empty() ? "" : ", ") + prefix + key + " (found " + shown(found, key) + ", expected " +
            shown(expected, key) + ")";
  }
}

}  // namespace

std::string shard_record_text(const ShardRecord& record) {
  const json root = {{"bytes", record.bytes},
                     {"sha256", record.sha256},
                     {"nonfinite", record.notes.nonfinite},
                     {"warnings", record.notes.warnings}};
  return root.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

Result<ShardRecord> parse_shard_record(std::string_view text) {
  const Refusal bad = refuse(ErrorCode::kDataCorrupt, "no record of a shard");
  if (text.size() > kRecordBytesMax) return bad;
  const Result<json> root = parse_json_strict(text, "record", kDepthMax);
  if (!root.ok()) return root.refusal();
  try {
    const json& value = root.value();
    ShardRecord record{value.at("bytes").get<uint64_t>(),
                       value.at("sha256").get<std::string>(),
                       {value.at("nonfinite").get<uint64_t>(), value.at("warnings").get<std::vector<std::string>>()}};
    if (value.size() != 4 || !is_sha256_hex(record.sha256)) return bad;
    return record;
  } catch (const json::exception&) {
    return bad;
  }
}

std::string record_difference(std::string_view found, std::string_view expected) {
  const Result<json> a = parse_json_strict(found, "record", kDepthMax);
  const Result<json> b = parse_json_strict(expected, "record", kDepthMax);
  if (!a.ok() || !b.ok() || !a.value().is_object() || !b.value().is_object()) {
    return found == expected ? "" : "its record, which cannot be read";
  }
  std::string text;
  add_differences(a.value(), b.value(), "", text);
  return text;
}

}  // namespace optserve::checkpoint

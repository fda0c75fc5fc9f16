// Fields of JSON bodies as tables. A body is checked against its table before anything is read from it, so that every
// value that is read later has its type and range; the OpenAPI document and docs/http.md are made from the same tables.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "http_api/openai/api_error.h"
#include "sampling/token_rules.h"

namespace optserve::http_api {

enum class FieldKind : uint8_t {
  kBoolean,
  kInteger,  // 5.0 counts as 5
  kSeed,     // any integer of 64 bits, signed or not
  kNumber,
  kString,        // min to max are its bytes
  kStringOrList,  // a string, or a list of them
  kStringList,
  kIdList,    // token ids
  kIdLists,   // lists of token ids
  kBiases,    // {"50118": -5}: token ids as keys
  kPrompt,    // a string, a list of strings, a list of ids, or a list of such lists
  kMessages,  // of a chat: a list of objects with role and content (chat/chat_messages.h)
  kTextOrMessages,
  kObject,  // with fields of its own
  kAny,     // for ignored and refused fields
};

enum class FieldUse : uint8_t {
  kUsed,
  kIgnored,  // known, but does not influence the output
  kRefused,  // known but not supported: only null and `neutral` are accepted
};

struct FieldInfo {
  std::string_view name;
  FieldKind kind = FieldKind::kAny;
  std::string_view fallback = "null";  // the default, as JSON
  std::string_view help{};             // one sentence
  double min = 0, max = 0;             // of numbers
  bool min_excluded = false;
  FieldUse use = FieldUse::kUsed;
  std::string_view neutral{};  // of a refused field: the JSON value that requests nothing
  bool required = false;
  std::vector<FieldInfo> members{};  // of an object
};

using FieldTable = std::vector<FieldInfo>;

// A field that is known but changes nothing.
FieldInfo ignored_field(std::string_view name, std::string_view help);
// A field that is refused unless it requests nothing, which is what the JSON value `neutral` does; if that is empty,
// only null does.
FieldInfo refused_field(std::string_view name, std::string_view neutral, std::string_view help);

// Parses the JSON of a body strictly: it must be an object, at most 8 levels deep. An empty body means no fields.
Parsed<nlohmann::json> parse_body(std::string_view body);

// Refuses unknown and missing fields, wrong types and values outside their range; null means that the field is absent.
// Names of fields in objects are prefixed by the object's name: "stream_options.include_usage".
std::optional<ApiError> check_fields(const nlohmann::json& object, const FieldTable& table,
                                     const std::string& prefix = "");

// The error for a refusal by protocol::validate, whose message begins with the name of a field of JobSpec. That name is
// replaced by the field's name in the table, which `name_in_table` returns. `context` is as for error_of().
ApiError error_of_job(const Refusal& refusal, const FieldTable& table,
                      std::string_view (*name_in_table)(std::string_view job_field), int32_t context);

// Reading a checked body.
inline bool has_field(const nlohmann::json& object, std::string_view name) {
  const auto found = object.find(name);
  return found != object.end() && !found->is_null();
}
template <class T>
std::optional<T> find_field(const nlohmann::json& object, std::string_view name) {
  const auto found = object.find(name);
  if (found == object.end() || found->is_null()) return std::nullopt;
  return found->template get<T>();
}
// Biases of a checked FieldKind::kBiases, in the order of their keys.
std::vector<sampling::TokenBias> read_biases(const nlohmann::json& object, std::string_view name);
// The strings of a list; a single string counts as a list of one.
std::vector<std::string> read_strings(const nlohmann::json& object, std::string_view name);

// The type and range in words, "integer, 0 to 20", for the documentation.
std::string field_type_text(const FieldInfo& field);
// The JSON schema of a field, for the OpenAPI document.
nlohmann::ordered_json field_schema(const FieldInfo& field);
// The rows of a table in docs/http.md.
std::string field_rows(const FieldTable& table);

}  // namespace optserve::http_api

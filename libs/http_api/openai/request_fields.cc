#include "http_api/openai/request_fields.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/input_check.h"
#include "base/limits.h"
#include "base/nearest_word.h"
#include "checkpoint/io/strict_json.h"

namespace optserve::http_api {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr int kBodyDepthMax = 8;
// Larger integers are not exact as a double.
constexpr double kExactIntegerMax = 9007199254740992.0;

std::string kind_text(FieldKind kind) {
  switch (kind) {
    case FieldKind::kBoolean:
      return "true or false";
    case FieldKind::kInteger:
    case FieldKind::kSeed:
      return "an integer";
    case FieldKind::kNumber:
      return "a number";
    case FieldKind::kString:
      return "a string";
    case FieldKind::kStringOrList:
      return "a string or a list of strings";
    case FieldKind::kStringList:
      return "a list of strings";
    case FieldKind::kIdList:
      return "a list of token ids";
    case FieldKind::kIdLists:
      return "a list of lists of token ids";
    case FieldKind::kBiases:
      return "an object of token ids and biases";
    case FieldKind::kPrompt:
      return "a string, a list of strings, a list of token ids or a list of such lists";
    case FieldKind::kMessages:
      return "a list of messages";
    case FieldKind::kTextOrMessages:
      return "a string or a list of messages";
    case FieldKind::kObject:
      return "an object";
    case FieldKind::kAny:
      break;
  }
  return "any value";
}

std::string found_kind(const json& value) {
  switch (value.type()) {
    case json::value_t::null:
      return "null";
    case json::value_t::object:
      return "an object";
    case json::value_t::array:
      return value.empty() ? "an empty list" : "a list";
    case json::value_t::string:
      return "a string";
    case json::value_t::boolean:
      return value.get<bool>() ? "true" : "false";
    default:
      break;
  }
  const std::string text = value.dump();
  return text.size() <= 24 ? text : "a number of " + std::to_string(text.size()) + " digits";
}

ApiError wrong_type(const std::string& name, const json& value, const std::string& expected) {
  return invalid_value(name, name + " is " + found_kind(value) + ", expected " + expected);
}

bool is_integer(const json& value) {
  if (value.is_number_integer()) return true;
  if (!value.is_number_float()) return false;
  const double number = value.get<double>();
  return std::trunc(number) == number && std::abs(number) <= kExactIntegerMax;
}

bool all_strings(const json& value) {
  return value.is_array() && std::ranges::all_of(value, [](const json& item) { return item.is_string(); });
}

bool is_message_list(const json& value) {
  return value.is_array() && !value.empty() &&
         std::ranges::all_of(value, [](const json& item) { return item.is_object(); });
}

std::optional<ApiError> check_ids(const std::string& name, const json& value) {
  for (size_t i = 0; i < value.size(); ++i) {
    const std::string item = name + "[" + std::to_string(i) + "]";
    if (!is_integer(value[i])) return wrong_type(item, value[i], "a token id");
    const Status status = check_range(item, value[i].get<double>(), 0, static_cast<double>(limits::kVocabularyMax - 1));
    if (!status.ok()) return invalid_value(name, status.refusal().message);
  }
  return std::nullopt;
}

// Each list has at least `least` ids.
std::optional<ApiError> check_id_lists(const std::string& name, const json& value, size_t least) {
  for (size_t i = 0; i < value.size(); ++i) {
    const std::string item = name + "[" + std::to_string(i) + "]";
    if (!value[i].is_array() || value[i].size() < least) return wrong_type(item, value[i], "a list of token ids");
    if (auto error = check_ids(item, value[i])) return error;
  }
  return std::nullopt;
}

std::optional<ApiError> check_biases(const std::string& name, const json& value) {
  for (const auto& [key, bias] : value.items()) {
    const bool is_id = !key.empty() && key.size() <= 7 && key.find_first_not_of("0123456789") == std::string::npos;
    if (!is_id) return invalid_value(name, name + " has the key " + found_text(key) + ", expected a token id");
    if (!bias.is_number()) return wrong_type(name + "['" + key + "']", bias, "a number");
    const Status status = check_range(name + "['" + key + "']", bias.get<double>(), -100, 100);
    if (!status.ok()) return invalid_value(name, status.refusal().message);
  }
  return std::nullopt;
}

std::optional<ApiError> check_prompt(const std::string& name, const json& value) {
  if (value.is_string()) return std::nullopt;
  if (!value.is_array() || value.empty()) return wrong_type(name, value, kind_text(FieldKind::kPrompt));
  if (value.front().is_number()) return check_ids(name, value);
  if (!value.front().is_string()) return check_id_lists(name, value, 1);
  for (size_t i = 0; i < value.size(); ++i) {
    if (value[i].is_string()) continue;
    return wrong_type(name + "[" + std::to_string(i) + "]", value[i], "a string like the first one");
  }
  return std::nullopt;
}

std::optional<ApiError> check_number(const FieldInfo& field, const std::string& name, const json& value) {
  const double number = value.get<double>();
  const Status status = field.kind == FieldKind::kInteger && std::abs(number) <= kExactIntegerMax
                            ? check_range(name, static_cast<int64_t>(number), static_cast<int64_t>(field.min),
                                          static_cast<int64_t>(field.max))
                        : field.min_excluded ? check_above(name, number, field.min, field.max)
                                             : check_range(name, number, field.min, field.max);
  if (status.ok()) return std::nullopt;
  return invalid_value(name, status.refusal().message);
}

std::optional<ApiError> check_value(const FieldInfo& field, const std::string& name, const json& value) {
  const auto expect = [&](bool is_right) -> std::optional<ApiError> {
    if (is_right) return std::nullopt;
    return wrong_type(name, value, kind_text(field.kind));
  };
  switch (field.kind) {
    case FieldKind::kBoolean:
      return expect(value.is_boolean());
    case FieldKind::kSeed:
      return expect(value.is_number_integer());
    case FieldKind::kInteger:
      if (auto error = expect(is_integer(value))) return error;
      return check_number(field, name, value);
    case FieldKind::kNumber:
      if (auto error = expect(value.is_number())) return error;
      return check_number(field, name, value);
    case FieldKind::kString:
      return expect(value.is_string());
    case FieldKind::kStringOrList:
      return expect(value.is_string() || all_strings(value));
    case FieldKind::kStringList:
      return expect(all_strings(value));
    case FieldKind::kIdList:
      if (auto error = expect(value.is_array())) return error;
      return check_ids(name, value);
    case FieldKind::kIdLists:
      if (auto error = expect(value.is_array())) return error;
      return check_id_lists(name, value, 0);
    case FieldKind::kBiases:
      if (auto error = expect(value.is_object())) return error;
      return check_biases(name, value);
    case FieldKind::kPrompt:
      return check_prompt(name, value);
    case FieldKind::kMessages:
      return expect(is_message_list(value));
    case FieldKind::kTextOrMessages:
      return expect(value.is_string() || is_message_list(value));
    case FieldKind::kObject:
      if (auto error = expect(value.is_object())) return error;
      return check_fields(value, field.members, name + ".");
    case FieldKind::kAny:
      break;
  }
  return std::nullopt;
}

// Messages and parts may have further fields, which say nothing (chat/chat_messages.h).
ordered_json message_list_schema() {
  const ordered_json string_schema{{"type", "string"}};
  const ordered_json kinds = ordered_json::array({"text", "input_text", "output_text"});
  const ordered_json part{{"type", "object"},
                          {"required", {"type", "text"}},
                          {"properties", {{"type", {{"type", "string"}, {"enum", kinds}}}, {"text", string_schema}}}};
  const ordered_json content{
      {"anyOf", {string_schema, {{"type", "array"}, {"items", part}}, ordered_json{{"type", "null"}}}}};
  const ordered_json role{{"type", "string"}, {"enum", {"system", "developer", "user", "assistant"}}};
  const ordered_json message{
      {"type", "object"}, {"required", {"role", "content"}}, {"properties", {{"role", role}, {"content", content}}}};
  return {{"type", "array"}, {"minItems", 1}, {"items", message}};
}

ApiError unknown_field(const std::string& key, const FieldTable& table, const std::string& prefix) {
  std::vector<std::string> names;
  for (const FieldInfo& field : table) names.emplace_back(field.name);
  const std::string nearest = nearest_word(key.substr(0, 64), names);
  const bool is_plain = is_name(key) && key.size() <= 64;  // others would make the message hard to read
  std::string message = "Unknown field " + (is_plain ? "'" + prefix + key + "'" : found_text(key));
  if (!nearest.empty()) message += "; did you mean '" + prefix + nearest + "'?";
  ApiError error = invalid_value(is_plain ? prefix + key : "", message);
  error.code = "unknown_parameter";
  return error;
}

// The schema of values of this kind and range.
ordered_json schema_of_kind(const FieldInfo& field) {
  const ordered_json string_schema{{"type", "string"}};
  const ordered_json id_schema{{"type", "integer"}, {"minimum", 0}, {"maximum", limits::kVocabularyMax - 1}};
  const auto list_of = [](const ordered_json& items) { return ordered_json{{"type", "array"}, {"items", items}}; };
  const auto some_of = [&](const ordered_json& items) {
    ordered_json list = list_of(items);
    list["minItems"] = 1;
    return list;
  };
  ordered_json schema;
  switch (field.kind) {
    case FieldKind::kBoolean:
      schema["type"] = "boolean";
      break;
    case FieldKind::kInteger:
      schema["type"] = "integer";
      schema["minimum"] = static_cast<int64_t>(field.min);
      schema["maximum"] = static_cast<int64_t>(field.max);
      break;
    case FieldKind::kSeed:
      schema["type"] = "integer";
      schema["minimum"] = std::numeric_limits<int64_t>::min();
      schema["maximum"] = std::numeric_limits<uint64_t>::max();
      break;
    case FieldKind::kNumber:
      schema["type"] = "number";
      schema[field.min_excluded ? "exclusiveMinimum" : "minimum"] = field.min;
      schema["maximum"] = field.max;
      break;
    case FieldKind::kString:
      schema = string_schema;
      break;
    case FieldKind::kStringOrList:
      schema["anyOf"] = {string_schema, list_of(string_schema)};
      break;
    case FieldKind::kStringList:
      schema = list_of(string_schema);
      break;
    case FieldKind::kIdList:
      schema = list_of(id_schema);
      break;
    case FieldKind::kIdLists:
      schema = list_of(list_of(id_schema));
      break;
    case FieldKind::kBiases:
      schema["type"] = "object";
      schema["propertyNames"] = {{"pattern", "^[0-9]{1,7}$"}};
      schema["additionalProperties"] = {{"type", "number"}, {"minimum", -100}, {"maximum", 100}};
      break;
    case FieldKind::kPrompt:
      schema["anyOf"] = {string_schema, some_of(string_schema), some_of(id_schema), some_of(some_of(id_schema))};
      break;
    case FieldKind::kMessages:
      schema = message_list_schema();
      break;
    case FieldKind::kTextOrMessages:
      schema["anyOf"] = {string_schema, message_list_schema()};
      break;
    case FieldKind::kObject:
      schema["type"] = "object";
      schema["additionalProperties"] = false;
      for (const FieldInfo& member : field.members) {
        schema["properties"][std::string(member.name)] = field_schema(member);
      }
      break;
    case FieldKind::kAny:
      break;
  }
  return schema;
}

std::string rows_of(const FieldTable& table, const std::string& prefix) {
  std::string rows;
  for (const FieldInfo& field : table) {
    const std::string use = field.use == FieldUse::kIgnored   ? "Ignored. "
                            : field.use == FieldUse::kRefused ? "Not supported: "
                                                              : "";
    rows += "| `" + prefix + std::string(field.name) + "` | " +
            (field.required ? "required" : std::string(field.fallback)) + " | " + field_type_text(field) + " | " + use +
            std::string(field.help) + " |\n" + rows_of(field.members, std::string(field.name) + ".");
  }
  return rows;
}

}  // namespace

FieldInfo ignored_field(std::string_view name, std::string_view help) {
  return {.name = name, .kind = FieldKind::kAny, .help = help, .use = FieldUse::kIgnored};
}

FieldInfo refused_field(std::string_view name, std::string_view neutral, std::string_view help) {
  return {.name = name,
          .kind = FieldKind::kAny,
          .fallback = neutral.empty() ? "null" : neutral,
          .help = help,
          .use = FieldUse::kRefused,
          .neutral = neutral};
}

Parsed<json> parse_body(std::string_view body) {
  if (body.empty()) return json::object();
  Result<json> parsed = checkpoint::parse_json_strict(body, "the body", kBodyDepthMax);
  if (!parsed.ok()) {
    ApiError error = invalid_value("", "The request: " + parsed.refusal().message);
    error.code = "invalid_json";
    return error;
  }
  if (!parsed.value().is_object()) {
    return invalid_value("", "The body is " + found_kind(parsed.value()) + ", expected an object");
  }
  return std::move(parsed).value();
}

std::optional<ApiError> check_fields(const json& object, const FieldTable& table, const std::string& prefix) {
  for (const auto& [key, value] : object.items()) {
    const auto field = std::ranges::find(table, std::string_view(key), &FieldInfo::name);
    if (field == table.end()) return unknown_field(key, table, prefix);
    if (value.is_null() || field->use == FieldUse::kIgnored) continue;
    const std::string name = prefix + key;
    if (field->use == FieldUse::kRefused) {
      if (!field->neutral.empty() && value == json::parse(field->neutral)) continue;
      return unsupported(name, name + " is not supported: " + std::string(field->help));
    }
    if (auto error = check_value(*field, name, value)) return error;
  }
  for (const FieldInfo& field : table) {
    // A prompt may be null, since some clients send an empty one that way; for other fields null means that the field
    // is absent.
    const bool is_there =
        field.kind == FieldKind::kPrompt ? object.contains(field.name) : has_field(object, field.name);
    if (field.required && !is_there) {
      ApiError error =
          invalid_value(prefix + std::string(field.name),
                        prefix + std::string(field.name) + " is missing, expected " + kind_text(field.kind));
      error.code = "missing_required_parameter";
      return error;
    }
  }
  return std::nullopt;
}

ApiError error_of_job(const Refusal& refusal, const FieldTable& table,
                      std::string_view (*name_in_table)(std::string_view), int32_t context) {
  ApiError error = error_of(refusal, 0, context);
  const std::string field = refusal.message.substr(0, refusal.message.find_first_of(" :"));
  const std::string name(name_in_table(field));
  if (std::ranges::find(table, name, &FieldInfo::name) == table.end()) return error;
  error.param = name;
  if (refusal.code == ErrorCode::kBadRequest) error.message = name + refusal.message.substr(field.size());
  return error;
}

std::vector<sampling::TokenBias> read_biases(const json& object, std::string_view name) {
  std::vector<sampling::TokenBias> biases;
  if (!has_field(object, name)) return biases;
  for (const auto& [id, bias] : object.find(name)->items()) {
    biases.push_back({static_cast<TokenId>(std::stol(id)), bias.get<float>()});
  }
  return biases;
}

std::vector<std::string> read_strings(const json& object, std::string_view name) {
  if (!has_field(object, name)) return {};
  const json& value = *object.find(name);
  if (value.is_string()) return {value.get<std::string>()};
  return value.get<std::vector<std::string>>();
}

std::string field_type_text(const FieldInfo& field) {
  const bool has_range = field.kind == FieldKind::kInteger || field.kind == FieldKind::kNumber;
  if (!has_range) return kind_text(field.kind);
  return kind_text(field.kind) + ", " + (field.min_excluded ? "above " : "") + number_text(field.min) + " to " +
         number_text(field.max);
}

ordered_json field_schema(const FieldInfo& field) {
  ordered_json schema = schema_of_kind(field);
  if (field.use == FieldUse::kRefused) {
    schema = {{"enum", ordered_json::array({nullptr})}};
    if (!field.neutral.empty()) schema["enum"].push_back(ordered_json::parse(field.neutral));
  } else if (!schema.empty()) {
    schema = {{"anyOf", ordered_json::array({schema, {{"type", "null"}}})}};  // null is as if the field were not there
  }
  if (!field.required) schema["default"] = ordered_json::parse(field.fallback);
  schema["description"] = field.help;
  return schema;
}

std::string field_rows(const FieldTable& table) {
  return "| field | default | value | meaning |\n|---|---|---|---|\n" + rows_of(table, "");
}

}  // namespace optserve::http_api

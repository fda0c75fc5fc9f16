#include "http_api/chat/chat_messages.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/input_check.h"
#include "http_api/openai/request_fields.h"

namespace optserve::http_api {
namespace {

using nlohmann::json;
using MaybeError = std::optional<ApiError>;

constexpr std::array<std::pair<std::string_view, ChatRole>, 4> kRoles = {{{"system", ChatRole::kSystem},
                                                                          {"developer", ChatRole::kSystem},
                                                                          {"user", ChatRole::kUser},
                                                                          {"assistant", ChatRole::kAssistant}}};

// Fields of messages that clients send back as they received them; they mean nothing here if they are empty.
constexpr std::array<std::string_view, 9> kEmptyOnly = {"refusal",     "tool_calls", "function_call",
                                                        "audio",       "images",     "reasoning_content",
                                                        "annotations", "thinking",   "reasoning"};
// Fields for people or machines that do not change the text.
constexpr std::array<std::string_view, 4> kWithoutInfluence = {"name", "id", "status", "type"};

bool holds_nothing(const json& value) { return value.is_null() || value.empty() || value == json(""); }

MaybeError add_part(const json& part, const std::string& name, std::string& text) {
  if (!part.is_object() || !part.contains("type") || !part.at("type").is_string()) {
    return invalid_value(name, name + ": expected an object with a type");
  }
  const auto& type = part.at("type").get_ref<const std::string&>();
  if (type != "text" && type != "input_text" && type != "output_text") {
    return unsupported(name + ".type",
                       name + ".type is " + found_text(type) + ", expected text: models read nothing else");
  }
  if (!part.contains("text") || !part.at("text").is_string()) {
    return invalid_value(name + ".text", name + ".text: expected a string");
  }
  text += part.at("text").get_ref<const std::string&>();
  return std::nullopt;
}

MaybeError read_content(const json& value, const std::string& name, std::string& text) {
  if (value.is_null()) return std::nullopt;  // an assistant that said nothing
  if (value.is_string()) {
    text = value.get<std::string>();
    return std::nullopt;
  }
  if (!value.is_array()) return invalid_value(name, name + ": expected a string or a list of parts");
  for (size_t i = 0; i < value.size(); ++i) {
    if (MaybeError error = add_part(value[i], name + "[" + std::to_string(i) + "]", text)) return error;
  }
  return std::nullopt;
}

MaybeError read_message(const json& value, const std::string& name, ChatMessage& message) {
  if (!value.contains("role") || !value.at("role").is_string()) {
    return invalid_value(name + ".role", name + ".role: expected system, developer, user or assistant");
  }
  const auto& word = value.at("role").get_ref<const std::string&>();
  const auto role = std::ranges::find(kRoles, word, [](const auto& one) { return one.first; });
  if (role == kRoles.end()) {
    return invalid_value(name + ".role", name + ".role is " + found_text(word) +
                                             ", expected system, developer, user or assistant; there are no tools");
  }
  for (const auto& [key, field] : value.items()) {
    if (key == "role" || key == "content" || std::ranges::find(kWithoutInfluence, key) != kWithoutInfluence.end()) {
      continue;
    }
    const bool is_known = std::ranges::find(kEmptyOnly, key) != kEmptyOnly.end();
    if (is_known && holds_nothing(field)) continue;
    const std::string at = is_name(key) && key.size() <= 64 ? name + "." + key : name;
    if (is_known) return unsupported(at, at + " is not supported: messages are texts");
    ApiError error = invalid_value(at, "Unknown field '" + at + "'");
    error.code = "unknown_parameter";
    return error;
  }
  message.role = role->second;
  if (!value.contains("content")) return invalid_value(name + ".content", name + ".content is missing");
  return read_content(value.at("content"), name + ".content", message.content);
}

}  // namespace

Parsed<std::vector<ChatMessage>> read_messages(const json& value, const std::string& name) {
  std::vector<ChatMessage> messages;
  for (size_t i = 0; i < value.size(); ++i) {
    if (MaybeError error = read_message(value[i], name + "[" + std::to_string(i) + "]", messages.emplace_back())) {
      return *error;
    }
  }
  return messages;
}

MaybeError need_template(const ChatTemplate* chat, const std::string& param) {
  if (chat != nullptr) return std::nullopt;
  return unsupported(param,
                     "OPT models know no roles, and this gateway was started without a text for them: give it "
                     "--chat-template plain, or --chat-template FILE (docs/http.md), or use /v1/completions");
}

void add_template_stops(const ChatTemplate& chat, json& completion) {
  std::vector<std::string> stops = read_strings(completion, "stop");
  for (const std::string& stop : chat.stop()) {
    if (std::ranges::find(stops, stop) == stops.end()) stops.push_back(stop);
  }
  completion["stop"] = stops;
}

}  // namespace optserve::http_api

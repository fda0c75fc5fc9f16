#include "http_api/chat/chat_template.h"

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "base/program.h"
#include "checkpoint/io/strict_json.h"

namespace optserve::http_api {
namespace {

using nlohmann::json;

constexpr std::string_view kPlainTemplate =
    R"({"system": "{content}\n\n", "user": "User: {content}\n", "assistant": "Assistant: {content}\n",
        "answer": "Assistant:", "stop": ["\nUser:"]})";
constexpr std::string_view kContent = "{content}";
constexpr size_t kTemplateBytesMax = 64 << 10;

Refusal wrong(const std::string& message) { return refuse(ErrorCode::kBadRequest, message); }

std::string_view without_white_space_at_ends(std::string_view text) {
  constexpr std::string_view kWhite = " \t\r\n";
  const size_t first = text.find_first_not_of(kWhite);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kWhite) - first + 1);
}

}  // namespace

Result<ChatTemplate> ChatTemplate::parse(std::string_view text) {
  Result<json> parsed = checkpoint::parse_json_strict(text, "the chat template", 4);
  if (!parsed.ok()) return parsed.refusal();
  const json& root = parsed.value();
  if (!root.is_object()) return wrong("the chat template is not a JSON object");
  ChatTemplate made;
  const std::pair<const char*, Frame*> frames[] = {
      {"system", &made.system_}, {"user", &made.user_}, {"assistant", &made.assistant_}};
  for (const auto& [name, frame] : frames) {
    if (!root.contains(name) || !root.at(name).is_string()) return wrong(std::string(name) + ": expected a text");
    const auto& given = root.at(name).get_ref<const std::string&>();
    const size_t at = given.find(kContent);
    if (at == std::string::npos || given.find(kContent, at + 1) != std::string::npos) {
      return wrong(std::string(name) + ": expected {content} once");
    }
    *frame = {given.substr(0, at), given.substr(at + kContent.size())};
  }
  if (!root.contains("answer") || !root.at("answer").is_string()) return wrong("answer: expected a text");
  made.answer_ = root.at("answer").get<std::string>();
  for (const auto& [key, value] : root.items()) {
    if (key == "system" || key == "user" || key == "assistant" || key == "answer") continue;
    if (key != "stop") return wrong("unknown field '" + key.substr(0, 64) + "'");
    if (!value.is_array() || value.size() > limits::kStopStringsMax / 2) return wrong("stop: expected up to 8 texts");
    for (const json& stop : value) {
      if (!stop.is_string() || stop.get_ref<const std::string&>().empty() ||
          stop.get_ref<const std::string&>().size() > limits::kStopStringBytesMax) {
        return wrong("stop: expected texts of 1 to 64 bytes");
      }
      made.stop_.push_back(stop.get<std::string>());
    }
  }
  return made;
}

ChatTemplate ChatTemplate::plain() { return parse(kPlainTemplate).value(); }

ChatTemplate ChatTemplate::load(const std::string& name) {
  if (name == "plain") return plain();
  std::ifstream file(name, std::ios::binary);
  if (!file) throw ConfigurationError("chat-template: " + name + " cannot be read, and is not 'plain'");
  std::string text(kTemplateBytesMax + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kTemplateBytesMax) throw ConfigurationError("chat-template: " + name + " has more than 64 KiB");
  Result<ChatTemplate> parsed = parse(text);
  if (!parsed.ok()) throw ConfigurationError("chat-template: " + name + ": " + parsed.refusal().message);
  return std::move(parsed).value();
}

std::string ChatTemplate::render(const std::vector<ChatMessage>& messages) const {
  std::string text;
  for (const ChatMessage& message : messages) {
    const Frame& frame = message.role == ChatRole::kSystem ? system_
                         : message.role == ChatRole::kUser ? user_
                                                           : assistant_;
    text += frame.before;
    text += without_white_space_at_ends(message.content);
    text += frame.after;
  }
  return text + answer_;
}

}  // namespace optserve::http_api

// The messages in bodies of chats, and the prompts that they become.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "http_api/chat/chat_template.h"
#include "http_api/openai/api_error.h"

namespace optserve::http_api {

// `value` is a checked FieldKind::kMessages. The content is a text or a list of text parts. Other kinds of parts, roles
// of tools, and fields that mean something else are refused by name: `name`[i].content …
Parsed<std::vector<ChatMessage>> read_messages(const nlohmann::json& value, const std::string& name);

// If there is no template, a 400 that says how to set one.
std::optional<ApiError> need_template(const ChatTemplate* chat, const std::string& param);

// Adds the texts that end an answer of the template to the `stop` of a completion's body.
void add_template_stops(const ChatTemplate& chat, nlohmann::json& completion);

}  // namespace optserve::http_api

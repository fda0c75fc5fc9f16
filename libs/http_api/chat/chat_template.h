// How the messages of a chat become a prompt. OPT models know no roles: the template says how a conversation is written
// as plain text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace optserve::http_api {

enum class ChatRole : uint8_t { kSystem, kUser, kAssistant };

struct ChatMessage {
  ChatRole role = ChatRole::kUser;
  std::string content;
};

// A text for each role, with `{content}` in the place of the message; the beginning of the answer; and texts that end
// the answer. As a file it is a JSON object, whose form docs/http.md describes:
//   {"system": "{content}\n\n", "user": "User: {content}\n", "assistant": "Assistant: {content}\n",
//    "answer": "Assistant:", "stop": ["\nUser:"]}
class ChatTemplate {
 public:
  // The example above.
  static ChatTemplate plain();
  // The refusal says which field is wrong.
  static Result<ChatTemplate> parse(std::string_view json);
  // `name` is "plain" or the name of a file. Throws ConfigurationError.
  static ChatTemplate load(const std::string& name);

  // The prompt: the messages in their order, without white space at their ends, and the beginning of the answer.
  std::string render(const std::vector<ChatMessage>& messages) const;
  const std::vector<std::string>& stop() const { return stop_; }

 private:
  struct Frame {
    std::string before, after;
  };
  Frame system_, user_, assistant_;
  std::string answer_;
  std::vector<std::string> stop_;
};

}  // namespace optserve::http_api

// Any bytes as the body of a chat: either it is refused with a 4xx status, or its jobs are valid and their results give
// an answer and a stream. Without a template every chat is refused.
#include <cstddef>
#include <cstdint>

#include "http_api/chat/chat_request.h"
#include "http_api/chat/chat_template.h"
#include "http_api/openai/fuzz_answers.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve;
  using namespace optserve::http_api;
  static const Models models = test_models();
  static const ChatTemplate plain = ChatTemplate::plain();
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  RequestContext context = test_context();
  check(!parse_chat(body, models, context).ok(), "chats need a template");
  context.chat = &plain;
  const auto parsed = parse_chat(body, models, context);
  if (!parsed.ok()) {
    check_error(parsed.error(), error_body(parsed.error()));
    return 0;
  }
  check_completion(parsed.value(), chat_body, chat_form);
  return 0;
}

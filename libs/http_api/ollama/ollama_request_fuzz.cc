// Any bytes as the bodies of Ollama's API: each is either refused with a 4xx status, or becomes valid jobs whose
// results give an answer and lines.
#include <cstddef>
#include <cstdint>

#include "http_api/chat/chat_template.h"
#include "http_api/ollama/ollama_request.h"
#include "http_api/openai/fuzz_answers.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve;
  using namespace optserve::http_api;
  static const Models models = test_models();
  static const ChatTemplate plain = ChatTemplate::plain();
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  for (const ChatTemplate* chat : {static_cast<const ChatTemplate*>(nullptr), &plain}) {
    RequestContext context = test_context();
    context.chat = chat;
    const auto generate = parse_ollama_generate(body, models, context);
    if (generate.ok()) {
      check_completion(generate.value(), ollama_generate_body, ollama_generate_form);
    } else {
      check_error(generate.error(), ollama_error_body(generate.error()));
    }
    const auto talk = parse_ollama_chat(body, models, context);
    if (talk.ok()) {
      check(chat != nullptr, "chats need a template");
      check_completion(talk.value(), ollama_chat_body, ollama_chat_form);
    } else {
      check_error(talk.error(), ollama_error_body(talk.error()));
    }
    const auto shown = ollama_show_body(body, models, chat);
    if (shown.ok()) {
      check(nlohmann::json::parse(shown.value()).contains("details"), "facts of a model");
    } else {
      check_error(shown.error(), ollama_error_body(shown.error()));
    }
  }
  return 0;
}

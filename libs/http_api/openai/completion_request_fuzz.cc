// Any bytes as the body of a completion: either it is refused with a 4xx status, or its jobs are valid and their
// results give an answer and a stream with the same texts.
#include <cstddef>
#include <cstdint>

#include "http_api/openai/fuzz_answers.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve;
  using namespace optserve::http_api;
  static const Models models = test_models();
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  const auto parsed = parse_completion(body, models, test_context());
  if (!parsed.ok()) {
    check_error(parsed.error(), error_body(parsed.error()));
    return 0;
  }
  const auto answer_body = [](const CompletionRequest&, const CompletionAnswer& answer) {
    const std::string text = answer.body();
    check(!nlohmann::json::parse(text)["choices"].empty(), "the answer has choices");
    return text;
  };
  const std::string frames = check_completion(parsed.value(), answer_body, completion_form);
  check(frames.empty() || frames.ends_with("data: [DONE]\n\n"), "the stream ends as clients expect it");
  return 0;
}

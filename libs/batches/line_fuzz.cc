// Any bytes as lines of a batch: each is refused with an error that is a line itself, or becomes valid jobs.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>

#include "batches/line.h"
#include "http_api/chat/chat_template.h"
#include "http_api/openai/test_models.h"
#include "protocol/validate.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve;
  static const http_api::Models models = http_api::test_models();
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  static const http_api::ChatTemplate chat = http_api::ChatTemplate::plain();
  for (const char* url : {"", "/v1/completions", "/v1/chat/completions", "/v1/responses"}) {
    const batches::Line line(input, 3, {.models = models, .run = "r", .caller = {}, .url = url, .chat = &chat});
    if (line.error()) {
      const std::string text = line.error_line(*line.error());
      check(text.find('\n') == text.size() - 1, "an error is one line");
      check(nlohmann::json::parse(text).contains("error"), "an error says what it is");
      check(batches::answered_number(text, "r") == 3, "an error names its line");
      continue;
    }
    for (const int attempt : {1, 2}) {
      for (const protocol::JobSpec& job : line.jobs(attempt)) check(protocol::validate(job).ok(), "jobs are valid");
    }
  }
  batches::answered_number(input, "r");
  return 0;
}

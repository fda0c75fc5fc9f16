// Any bytes as the body of a response, and as its id: either it is refused with a 4xx status, or its job is valid, its
// events have growing numbers, and a client that reconnects after any of them gets the rest.
#include <cstddef>
#include <cstdint>

#include "http_api/chat/chat_template.h"
#include "http_api/openai/fuzz_answers.h"
#include "http_api/responses/response_request.h"

namespace {

using namespace optserve;
using namespace optserve::http_api;

int64_t check_numbers(std::string_view frames, int64_t after) {
  constexpr std::string_view kData = "data: ";
  for (size_t at = frames.find(kData); at != frames.npos; at = frames.find(kData, at + 1)) {
    const size_t begin = at + kData.size();
    const auto event = nlohmann::json::parse(frames.substr(begin, frames.find('\n', begin) - begin), nullptr, false);
    if (!event.is_object()) continue;  // of a text that contains these words
    const auto number = event.at("sequence_number").get<int64_t>();
    check(number > after, "numbers grow");
    after = number;
  }
  return after;
}

void check_response(const ResponseRequest& made) {
  const auto body = [&](const CompletionRequest&, const CompletionAnswer& answer) {
    return response_json(made.facts, *answer.choices().front().result).dump();
  };
  const JobId job{{7}};
  check_completion(made.completion, body, [&](const CompletionRequest&) { return response_form(made.facts, job); });
  if (made.completion.model.text == nullptr) return;
  protocol::JobResult result =
      test_result(made.completion, made.completion.jobs().front(), {4, 5, 2}, made.completion.model);
  result.job = job;
  ResponseEvents events(made.facts, job);
  const int64_t last = check_numbers(events.begin() + events.text(result.text.substr(0, 2)) + events.end(result), -1);
  for (int64_t after = 0; after < last; ++after) {
    ResponseEvents rest(made.facts, job, after);
    const uint64_t have = ResponseEvents::bytes_before(after);
    check(check_numbers(rest.begin() + rest.text(result.text.substr(std::min<size_t>(have, result.text.size()))) +
                            rest.end(result),
                        after) == last,
          "whoever comes back gets the rest");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Models models = test_models();
  static const ChatTemplate plain = ChatTemplate::plain();
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  if (const auto job = job_of_response(body)) check(response_id(*job) == body, "an id has one form");
  facts_of_group(body);
  for (const ChatTemplate* chat : {static_cast<const ChatTemplate*>(nullptr), &plain}) {
    RequestContext context = test_context();
    context.chat = chat;
    const auto parsed = parse_response(body, models, context);
    if (!parsed.ok()) {
      check_error(parsed.error(), error_body(parsed.error()));
      continue;
    }
    check(facts_of_group(parsed.value().completion.lone_group).has_value(), "its job is known as a response");
    check_response(parsed.value());
  }
  return 0;
}

// Any bytes as the body of a completion: it is refused with a status of 4xx, or its jobs are valid and their results
// make an answer and a stream with the same texts.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>

#include "http_api/openai/completion_answer.h"
#include "http_api/openai/completion_stream.h"
#include "http_api/openai/test_models.h"
#include "protocol/validate.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve;
  using namespace optserve::http_api;
  static const Models models = test_models();
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  const auto parsed = parse_completion(body, models, test_context());
  if (!parsed.ok()) {
    check(parsed.error().status >= 400 && parsed.error().status < 500, "a mistake of the request");
    check(!nlohmann::json::parse(error_body(parsed.error())).empty(), "an error that clients can read");
    return 0;
  }
  const CompletionRequest& request = parsed.value();
  const std::vector<protocol::JobSpec> jobs = request.jobs();
  check(jobs.size() == request.num_jobs(), "as many jobs as it says");
  for (protocol::JobSpec job : jobs) {
    if (job.key.empty()) job.key = "k";
    check(protocol::validate(job).ok(), "every job is valid");
  }
  if (request.model.text == nullptr || jobs.size() > 16) return 0;
  CompletionAnswer answer(request);
  CompletionStream stream(request);
  std::string frames = stream.on_start();
  for (size_t i = 0; i < jobs.size(); ++i) {
    const auto id = static_cast<TokenId>(4 + i);
    const protocol::JobResult result = test_result(request, jobs[i], {id, 2}, request.model);
    frames += stream.on_text(i, result.text.substr(0, 1));
    frames += stream.on_finished(i, result);
    answer.add(i, result);
  }
  check(stream.is_over() && !stream.has_failed() && frames.ends_with("data: [DONE]\n\n"), "the stream ends");
  check(!nlohmann::json::parse(answer.body())["choices"].empty(), "the answer has choices");
  return 0;
}

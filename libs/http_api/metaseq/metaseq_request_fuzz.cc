// Any bytes as the body of a completion of Metaseq's form: either it is refused with a 4xx status, or it gives valid
// jobs and an answer.
#include <cstddef>
#include <cstdint>

#include "http_api/metaseq/metaseq_request.h"
#include "http_api/openai/fuzz_answers.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve;
  using namespace optserve::http_api;
  static const Models models = test_models();
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  const auto parsed = parse_metaseq(body, models, test_context());
  if (!parsed.ok()) {
    check_error(parsed.error(), error_body(parsed.error()));
    return 0;
  }
  const CompletionRequest& request = parsed.value();
  if (!check_jobs(request)) return 0;
  const std::vector<protocol::JobSpec> jobs = request.jobs();
  CompletionAnswer answer(request);
  for (size_t i = 0; i < jobs.size(); ++i) answer.add(i, test_result(request, jobs[i], {100, 2}, request.model));
  check(!nlohmann::json::parse(metaseq_body(request, answer))["choices"].empty(), "the answer has choices");
  return 0;
}

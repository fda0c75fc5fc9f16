// Any bytes as the bodies, queries and headers of the jobs API: either they are refused, or they give valid jobs.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>

#include "http_api/jobs/job_events.h"
#include "http_api/jobs/job_list.h"
#include "http_api/jobs/job_request.h"
#include "http_api/openai/test_models.h"
#include "protocol/validate.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve;
  using namespace optserve::http_api;
  static const Models models = test_models();
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  if (const auto jobs = parse_jobs(input, models, {}); jobs.ok()) {
    for (protocol::JobSpec job : jobs.value().jobs) {
      if (job.key.empty()) job.key = "k";
      check(protocol::validate(job).ok(), "every job is valid");
    }
  } else {
    check(!nlohmann::json::parse(error_body(jobs.error())).empty(), "an error that clients can read");
  }
  if (const auto control = parse_queue_control(input); control.ok()) {
    check(control.value().scope == protocol::ControlScope::kQueue || !control.value().name.empty(), "a name");
  }
  for (const char* field : {"state", "model", "limit", "after"}) {
    const auto query = parse_job_query({{field, std::string(input)}}, "");
    check(!query.ok() || query.value().limit <= 1'000, "a page of bounded size");
  }
  check(!parse_last_event_id(input).ok() || input.size() <= 64, "a number");
  return 0;
}

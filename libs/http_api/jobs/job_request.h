// `POST /v1/jobs`: one job, or {"jobs": [many]}.
#pragma once

#include <string_view>
#include <vector>

#include "http_api/jobs/caller.h"
#include "http_api/openai/api_error.h"
#include "http_api/openai/models.h"
#include "protocol/message_types.h"

namespace optserve::http_api {

struct JobsRequest {
  std::vector<protocol::JobSpec> jobs;  // valid; without a key the client library makes one
  bool is_list = false;                 // then the answer is a list as well
  bool has_conversion = false;          // only operators may ask for it
};

struct JobContext {
  Caller caller{};                // jobs get its tenant; without keys each job names its own
  std::string idempotency_key{};  // from the header, for a body of one job
};

inline constexpr size_t kJobsPerRequestMax = 1'000;

// Refuses the whole body if one of its jobs is wrong: "jobs[3].temperature is …".
Parsed<JobsRequest> parse_jobs(std::string_view body, const Models& models, const JobContext& context);

}  // namespace optserve::http_api

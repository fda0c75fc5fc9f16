// Answers of the jobs API.
#pragma once

#include <string>
#include <vector>

#include "client/client.h"
#include "http_api/jobs/job_request.h"
#include "http_api/openai/api_error.h"
#include "protocol/client_messages.h"
#include "protocol/operator_messages.h"

namespace optserve::http_api {

struct HttpAnswer {
  int status = 200;
  std::string body{};
  HttpHeaders headers{};
};

// An error as an answer.
HttpAnswer answer_of(const ApiError& error);

// POST /v1/jobs. 202 if at least one job was accepted; in a list, jobs that were not accepted have "error" instead. If
// no job was accepted, the answer is the error of the first one.
HttpAnswer submit_answer(const JobsRequest& request, const std::vector<protocol::SubmitOutcome>& outcomes);

// The answer to GET /v1/jobs/{id} and to cancel and requeue: the state without the text.
std::string state_body(const protocol::JobResult& result);
// GET /v1/jobs/{id}/result: 200 with everything once the job has ended in any way; until then 202 with its state.
HttpAnswer result_answer(const protocol::JobResult& result);

std::string group_body(const std::string& tenant, const std::string& name, const protocol::GroupStatus& group);
// GET /v1/queue: {"schedulers": […]}. If none answered, 503 with an `error` beside it.
HttpAnswer queue_answer(const client::Answers<protocol::SystemStatus>& answers);

}  // namespace optserve::http_api

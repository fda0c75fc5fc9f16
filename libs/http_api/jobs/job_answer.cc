#include "http_api/jobs/job_answer.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "job_json/job_json.h"

namespace optserve::http_api {
namespace {

using nlohmann::ordered_json;
using protocol::SubmitOutcome;

ordered_json accepted_json(const SubmitOutcome& outcome) {
  return {{"job", outcome.job->hex()},
          {"state", protocol::job_state_name(protocol::JobState::kQueued)},
          {"position", outcome.position},
          {"eta_ms", outcome.eta_ms},
          {"duplicate", outcome.duplicate}};
}

}  // namespace

HttpAnswer answer_of(const ApiError& error) { return {error.status, error_body(error), error_headers(error)}; }

HttpAnswer submit_answer(const JobsRequest& request, const std::vector<SubmitOutcome>& outcomes) {
  check(outcomes.size() == request.jobs.size(), "one outcome for each job");
  const bool is_any_accepted = std::ranges::any_of(outcomes, [](const auto& one) { return !one.error; });
  if (!is_any_accepted) return answer_of(*first_error(outcomes));
  HttpAnswer answer{.status = 202};
  if (!request.is_list) {
    answer.body = job_json::json_text(accepted_json(outcomes.front()));
    answer.headers.emplace_back("Location", "/v1/jobs/" + outcomes.front().job->hex());
    return answer;
  }
  ordered_json jobs = ordered_json::array();
  for (const SubmitOutcome& outcome : outcomes) {
    if (!outcome.error) {
      jobs.push_back(accepted_json(outcome));
      continue;
    }
    ordered_json refused = ordered_json::parse(error_body(error_of(outcome)));
    refused["retry_after_ms"] = outcome.retry_after_ms;
    jobs.push_back(std::move(refused));
  }
  answer.body = job_json::json_text({{"jobs", std::move(jobs)}});
  return answer;
}

std::string state_body(const protocol::JobResult& result) { return job_json::json_text(job_json::state_json(result)); }

HttpAnswer result_answer(const protocol::JobResult& result) {
  if (protocol::is_terminal(result.state)) return {.body = job_json::json_text(job_json::result_json(result))};
  return {.status = 202, .body = state_body(result), .headers = {{"Retry-After", "1"}}};
}

std::string group_body(const std::string& tenant, const std::string& name, const protocol::GroupStatus& group) {
  return job_json::json_text(job_json::group_json(tenant, name, group));
}

HttpAnswer queue_answer(const client::Answers<protocol::SystemStatus>& answers) {
  ordered_json body = job_json::status_json(answers);
  HttpAnswer answer;
  if (std::ranges::none_of(answers, [](const auto& one) { return one.answer.ok(); })) {
    const ApiError error = unavailable("no scheduler answers");
    body["error"] = ordered_json::parse(error_body(error))["error"];
    answer = answer_of(error);
  }
  answer.body = job_json::json_text(body);
  return answer;
}

}  // namespace optserve::http_api

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gateway/service/answers.h"
#include "gateway/service/routes.h"
#include "job_json/job_json.h"

namespace optserve::gateway {
namespace {

using ExchangePtr = std::shared_ptr<http::Exchange>;
using nlohmann::ordered_json;
using protocol::JobResult;
using protocol::JobSummary;

std::optional<JobSummary> summary_in(const client::Answers<protocol::JobList>& answers) {
  for (const auto& scheduler : answers) {
    if (scheduler.answer.ok() && !scheduler.answer.value().jobs.empty()) return scheduler.answer.value().jobs.front();
  }
  return std::nullopt;
}

// Texts of all ids that the result names, and where those of the output and of the prompt begin.
void add_token_texts(const JobResult& result, const http_api::TokenTexts& texts, ordered_json& record) {
  std::set<TokenId> ids(result.ids.begin(), result.ids.end());
  ids.insert(result.prompt_ids.begin(), result.prompt_ids.end());
  for (const auto& best : result.best) {
    for (const sampling::TokenLogprob& token : best) ids.insert(token.id);
  }
  ordered_json by_id = ordered_json::object();
  for (const TokenId id : ids) by_id[std::to_string(id)] = texts.text(id);
  record["token_texts"] = std::move(by_id);
  record["text_offsets"] = texts.offsets(result.ids, 0);
}

http::Answer record_answer(const http_api::Models& models, const JobResult& result,
                           const std::optional<JobSummary>& summary) {
  ordered_json record = job_json::job_json(result, summary);
  const http_api::Parsed<http_api::Model> model = models.find(summary ? summary->model : "");
  if (summary && model.ok() && model.value().texts != nullptr) {
    add_token_texts(result, *model.value().texts, record);
  }
  return json_answer(job_json::json_text(record));
}

// The result says how the job ended; the row of the list, of which model it is and when it was accepted.
void serve_record(const GatewayParts& parts, const ExchangePtr& exchange) {
  const std::string id(exchange->request().parameter("id"));
  const std::optional<JobId> job = JobId::from_hex(id);
  if (!job) return exchange->answer(error_answer(unknown_job(id)));
  const http_api::Caller caller = caller_of(exchange->request());
  const auto answer = [parts, exchange](http::Answer made) {
    parts.server.post([exchange, made = std::move(made)] { exchange->answer(made); });
  };
  parts.client.get(*job, [parts, exchange, caller, answer, job = *job](const Result<JobResult>& result) {
    const bool is_hidden = result.ok() ? !caller.may_see(result.value().tenant)
                                       : !caller.may_operate && result.refusal().code == ErrorCode::kNotFound;
    if (is_hidden) return answer(error_answer(unknown_job(job.hex())));
    if (!result.ok()) return answer(error_answer(http_api::error_of(result.refusal())));
    protocol::JobFilter filter;
    filter.job = job;
    parts.client.list(filter, 1, {}, [parts, exchange, found = result.value()](const auto& answers) {
      parts.server.post([&models = parts.models, exchange, found, summary = summary_in(answers)] {
        exchange->answer(record_answer(models, found, summary));
      });
    });
  });
}

}  // namespace

void add_record_route(const GatewayParts& parts) {
  parts.server.route("GET", "/v1/jobs/{id}/record",
                     [parts](const ExchangePtr& exchange) { serve_record(parts, exchange); });
}

}  // namespace optserve::gateway

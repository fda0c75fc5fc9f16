#include "http_api/jobs/job_request.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/input_check.h"
#include "base/limits.h"
#include "http_api/jobs/job_fields.h"
#include "http_api/openai/names.h"
#include "protocol/validate.h"
#include "sampling/token_rules.h"

namespace optserve::http_api {
namespace {

using nlohmann::json;
using protocol::JobSpec;
using MaybeError = std::optional<ApiError>;

ApiError with_prefix(ApiError error, const std::string& prefix) {
  error.message = prefix + error.message;
  if (!error.param.empty()) error.param = prefix + error.param;
  return error;
}

ApiError refused_job_of(const Refusal& refusal, const Model& model) {
  return error_of_job(
      refusal, job_fields(), [](std::string_view name) { return name; }, model.context);
}

MaybeError check_job_ids(const JobSpec& job, const Model& model) {
  if (model.vocab == 0) return std::nullopt;
  for (const TokenId id : job.prompt_ids) {
    if (id < model.vocab) continue;
    return invalid_value("prompt_ids", "prompt_ids has the id " + std::to_string(id) + ", expected 0 to " +
                                           std::to_string(model.vocab - 1));
  }
  if (Status rules = sampling::validate(job.rules, model.vocab); !rules.ok()) {
    return refused_job_of(rules.refusal(), model);
  }
  return std::nullopt;
}

MaybeError check_job_length(const JobSpec& job, const Model& model) {
  const size_t tokens = job.prompt_ids.size() + static_cast<size_t>(job.max_new_tokens);
  if (model.context == 0 || tokens <= static_cast<size_t>(model.context)) return std::nullopt;
  ApiError error = context_overflow(model.context, job.prompt_ids.size(), job.max_new_tokens);
  error.param = "prompt_ids";
  return error;
}

MaybeError read_job(const json& object, const Models& models, const JobContext& context, JobSpec& job) {
  if (auto error = check_fields(object, job_fields())) return error;
  if (auto error = read_job_fields(object, job)) return error;
  Parsed<std::string> tenant = context.caller.tenant_for(job.tenant);
  if (!tenant.ok()) return tenant.error();
  job.tenant = std::move(tenant).value();
  if (job.convert && !context.caller.may_operate) return forbidden("The API key may not ask for conversions.");
  if (job.key.empty()) job.key = name_of(context.idempotency_key, limits::kKeyBytesMax);
  Model model;
  if (!job.convert) {
    Parsed<Model> found = models.find(job.model);
    if (!found.ok()) return found.error();
    model = std::move(found).value();
    job.model = model.name;
  }
  JobSpec checked = job;
  if (checked.key.empty()) checked.key = "chosen-by-the-client";
  if (Status status = protocol::validate(checked); !status.ok()) return refused_job_of(status.refusal(), model);
  if (job.convert) return std::nullopt;
  if (MaybeError error = check_job_ids(job, model)) return error;
  return check_job_length(job, model);
}

}  // namespace

Parsed<JobsRequest> parse_jobs(std::string_view body, const Models& models, const JobContext& context) {
  const Parsed<json> parsed = parse_body(body);
  if (!parsed.ok()) return parsed.error();
  const json& root = parsed.value();
  JobsRequest request;
  request.is_list = root.contains("jobs");
  if (!request.is_list) {
    if (MaybeError error = read_job(root, models, context, request.jobs.emplace_back())) return *error;
    request.has_conversion = request.jobs.front().convert.has_value();
    return request;
  }
  const json& list = root.at("jobs");
  if (root.size() > 1) return invalid_value("", "The body has 'jobs' and other fields; these belong into each job");
  if (!list.is_array() || list.empty()) return invalid_value("jobs", "jobs: expected a list of at least one job");
  if (list.size() > kJobsPerRequestMax) {
    return invalid_value("jobs", "jobs has " + std::to_string(list.size()) + " entries, at most " +
                                     std::to_string(kJobsPerRequestMax) + " are allowed in one request");
  }
  if (!context.idempotency_key.empty()) {
    return invalid_value("jobs", "Idempotency-Key is for one job; in a list each job has its own key");
  }
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string prefix = "jobs[" + std::to_string(i) + "]";
    if (!list[i].is_object()) return invalid_value(prefix, prefix + ": expected an object");
    JobSpec& job = request.jobs.emplace_back();
    if (MaybeError error = read_job(list[i], models, context, job)) return with_prefix(*error, prefix + ".");
    request.has_conversion |= job.convert.has_value();
  }
  return request;
}

}  // namespace optserve::http_api

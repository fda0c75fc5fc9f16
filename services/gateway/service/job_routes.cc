#include <memory>
#include <utility>

#include "base/input_check.h"
#include "base/limits.h"
#include "gateway/service/answers.h"
#include "gateway/service/counting_stream.h"
#include "gateway/service/job_events_call.h"
#include "gateway/service/routes.h"
#include "http_api/jobs/job_answer.h"
#include "http_api/jobs/job_list.h"
#include "http_api/jobs/job_request.h"

namespace optserve::gateway {
namespace {

constexpr size_t kJobsBodyBytesMax = 16 << 20;

using ExchangePtr = std::shared_ptr<http::Exchange>;
using protocol::JobResult;

http::Answer answer_of_jobs(http_api::HttpAnswer answer) {
  http::Answer result = json_answer(std::move(answer.body), answer.status);
  for (const auto& [name, value] : answer.headers) result.headers.set(name, value);
  return result;
}

// A callback for the client's thread: `make` turns what it gets into the answer, on the server's thread.
template <class T, class Make>
std::function<void(T)> answering(const GatewayParts& parts, const ExchangePtr& exchange, Make make) {
  return [&server = parts.server, exchange, make](T value) {
    server.post([exchange, make, value = std::move(value)]() mutable { exchange->answer(make(std::move(value))); });
  };
}

// The same for a Result, whose refusal is an error.
template <class T, class Make>
std::function<void(Result<T>)> answering_result(const GatewayParts& parts, const ExchangePtr& exchange, Make make) {
  return answering<Result<T>>(parts, exchange, [make](Result<T> result) {
    return result.ok() ? make(std::move(result).value()) : error_answer(http_api::error_of(result.refusal()));
  });
}

void submit(const GatewayParts& parts, const ExchangePtr& exchange) {
  const http::Request& request = exchange->request();
  http_api::JobContext context;
  context.caller = caller_of(request);
  context.idempotency_key = request.headers.get("Idempotency-Key");
  http_api::Parsed<http_api::JobsRequest> parsed = http_api::parse_jobs(request.body, parts.models, context);
  if (!parsed.ok()) return exchange->answer(error_answer(parsed.error()));
  std::vector<protocol::JobSpec> jobs = parsed.value().jobs;
  for (protocol::JobSpec& job : jobs) {
    if (job.traceparent.empty()) job.traceparent = request.note("traceparent");
  }
  http_api::Parsed<std::shared_ptr<OpenJobs>> open_jobs = parts.access.open_jobs(request, jobs.size());
  if (!open_jobs.ok()) return exchange->answer(error_answer(open_jobs.error()));
  parts.client.submit(
      std::move(jobs), counting_stream(open_jobs.value()),
      answering<client::Submission>(
          parts, exchange,
          [jobs_request = std::move(parsed).value(), open = open_jobs.value()](client::Submission submission) {
            if (!submission.outcomes.ok()) return error_answer(http_api::error_of(submission.outcomes.refusal()));
            for (const auto& outcome : submission.outcomes.value()) {
              if (outcome.error) open->end_one();
            }
            return answer_of_jobs(http_api::submit_answer(jobs_request, submission.outcomes.value()));
          }));
}

http::Answer state_answer(const JobResult& result) { return json_answer(http_api::state_body(result)); }

// Calls `work` with the job of the path; an id that cannot be one is answered as unknown.
template <class Work>
http::Handler with_job(Work work) {
  return [work](const ExchangePtr& exchange) {
    const std::string_view text = exchange->request().parameter("id");
    const std::optional<JobId> job = JobId::from_hex(text);
    if (job) return work(exchange, *job);
    exchange->answer(error_answer(unknown_job(text)));
  };
}

http_api::ApiError still_open(const JobId& job) {
  http_api::ApiError error =
      http_api::invalid_value("", "Job " + job.hex() + " has not ended; cancel it before it is deleted.");
  error.status = 409;
  error.code = "job_is_open";
  error.should_retry = false;
  return error;
}

// Answers with what `make` makes of a job; another tenant's job is answered as one that does not exist.
template <class Make>
void answer_job(const GatewayParts& parts, const ExchangePtr& exchange, const JobId& job, Make make) {
  const auto answer = [make, job, caller = caller_of(exchange->request())](const Result<JobResult>& result) {
    const bool is_hidden = result.ok() ? !caller.may_see(result.value().tenant)
                                       : !caller.may_operate && result.refusal().code == ErrorCode::kNotFound;
    if (is_hidden) return error_answer(unknown_job(job.hex()));
    return result.ok() ? make(result.value()) : error_answer(http_api::error_of(result.refusal()));
  };
  parts.client.get(job, answering<Result<JobResult>>(parts, exchange, answer));
}

// Calls `work` on the server's thread if the caller may see the job.
template <class Work>
http::Handler with_own_job(const GatewayParts& parts, Work work) {
  return with_job([parts, work](const ExchangePtr& exchange, const JobId& job) {
    const http_api::Caller caller = caller_of(exchange->request());
    if (caller.may_operate) return work(exchange, job);
    parts.client.get(job, [parts, work, exchange, job, caller](const Result<JobResult>& result) {
      parts.server.post([work, exchange, job, caller, result] {
        if (result.ok() && caller.may_see(result.value().tenant)) return work(exchange, job);
        const bool is_unknown = result.ok() || result.refusal().code == ErrorCode::kNotFound;
        exchange->answer(error_answer(is_unknown ? unknown_job(job.hex()) : http_api::error_of(result.refusal())));
      });
    });
  });
}

void list(const GatewayParts& parts, const ExchangePtr& exchange) {
  const http_api::Caller caller = caller_of(exchange->request());
  http_api::Parsed<http_api::JobQuery> query =
      http_api::parse_job_query(exchange->request().target.query, caller.may_operate ? "" : caller.tenant);
  if (!query.ok()) return exchange->answer(error_answer(query.error()));
  const http_api::JobQuery& asked = query.value();
  parts.client.list(
      asked.filter, asked.limit, asked.after,
      answering<client::Answers<protocol::JobList>>(parts, exchange,
                                                    [asked](const client::Answers<protocol::JobList>& answers) {
                                                      return json_answer(http_api::list_body(asked, answers));
                                                    }),
      asked.order);
}

void group(const GatewayParts& parts, const ExchangePtr& exchange, bool cancel) {
  const std::string* given = exchange->request().query("tenant");
  const http_api::Parsed<std::string> owner = caller_of(exchange->request()).tenant_for(given == nullptr ? "" : *given);
  if (!owner.ok()) return exchange->answer(error_answer(owner.error()));
  const std::string& tenant = owner.value();
  if (const Status status = check_name("tenant", tenant, 0, limits::kTenantBytesMax); !status.ok()) {
    return exchange->answer(error_answer(http_api::invalid_value("tenant", status.refusal().message)));
  }
  const std::string name(exchange->request().parameter("name"));
  parts.client.group(
      tenant, name, cancel,
      answering_result<protocol::GroupStatus>(parts, exchange, [tenant, name](const protocol::GroupStatus& status) {
        return json_answer(http_api::group_body(tenant, name, status));
      }));
}

std::function<void(client::Answers<protocol::SystemStatus>)> answering_queue(const GatewayParts& parts,
                                                                             const ExchangePtr& exchange) {
  return answering<client::Answers<protocol::SystemStatus>>(parts, exchange,
                                                            [](const client::Answers<protocol::SystemStatus>& answers) {
                                                              return answer_of_jobs(http_api::queue_answer(answers));
                                                            });
}

// Deletes the ended jobs that match; `make` turns their number into the answer.
template <class Make>
void purge(const GatewayParts& parts, const ExchangePtr& exchange, const protocol::JobFilter& filter, Make make) {
  parts.client.purge(filter, answering_result<int64_t>(parts, exchange, make));
}

void delete_jobs(const GatewayParts& parts, const ExchangePtr& exchange) {
  const http_api::Parsed<protocol::JobFilter> filter = http_api::parse_purge_query(exchange->request().target.query);
  if (!filter.ok()) return exchange->answer(error_answer(filter.error()));
  purge(parts, exchange, filter.value(),
        [](int64_t count) { return json_answer("{\"deleted\":" + std::to_string(count) + "}"); });
}

void delete_job(const GatewayParts& parts, const ExchangePtr& exchange, const JobId& job) {
  parts.client.get(job, [parts, exchange, job](const Result<JobResult>& result) {
    parts.server.post([parts, exchange, job, result] {
      if (!result.ok()) return exchange->answer(error_answer(http_api::error_of(result.refusal())));
      if (!protocol::is_terminal(result.value().state)) return exchange->answer(error_answer(still_open(job)));
      protocol::JobFilter filter;
      filter.job = job;
      purge(parts, exchange, filter, [job](int64_t count) {
        if (count == 0) return error_answer(unknown_job(job.hex()));
        return json_answer("{\"job\":\"" + job.hex() + "\",\"deleted\":true}");
      });
    });
  });
}

void control(const GatewayParts& parts, const ExchangePtr& exchange) {
  const http_api::Parsed<http_api::QueueControl> wanted = http_api::parse_queue_control(exchange->request().body);
  if (!wanted.ok()) return exchange->answer(error_answer(wanted.error()));
  parts.client.control(wanted.value().action, wanted.value().scope, wanted.value().name,
                       answering_queue(parts, exchange));
}

}  // namespace

void add_job_routes(const GatewayParts& parts) {
  http::Server& server = parts.server;
  server.route("POST", "/v1/jobs", [parts](const ExchangePtr& exchange) { submit(parts, exchange); },
               {.body_bytes_max = kJobsBodyBytesMax});
  server.route("GET", "/v1/jobs", [parts](const ExchangePtr& exchange) { list(parts, exchange); });
  server.route("DELETE", "/v1/jobs", [parts](const ExchangePtr& exchange) { delete_jobs(parts, exchange); });
  server.route("DELETE", "/v1/jobs/{id}",
               with_job([parts](const ExchangePtr& exchange, const JobId& job) { delete_job(parts, exchange, job); }));
  server.route("GET", "/v1/jobs/{id}", with_job([parts](const ExchangePtr& exchange, const JobId& job) {
                 answer_job(parts, exchange, job, state_answer);
               }));
  server.route("GET", "/v1/jobs/{id}/result", with_job([parts](const ExchangePtr& exchange, const JobId& job) {
                 const auto answer = [](const JobResult& result) {
                   return answer_of_jobs(http_api::result_answer(result));
                 };
                 answer_job(parts, exchange, job, answer);
               }));
  server.route("GET", "/v1/jobs/{id}/events",
               with_own_job(parts, [parts](const ExchangePtr& exchange, const JobId& job) {
                 serve_job_events(parts, exchange, job);
               }));
  server.route("POST", "/v1/jobs/{id}/cancel",
               with_own_job(parts, [parts](const ExchangePtr& exchange, const JobId& job) {
                 parts.client.cancel(job, answering_result<JobResult>(parts, exchange, state_answer));
               }));
  server.route("POST", "/v1/jobs/{id}/requeue", with_job([parts](const ExchangePtr& exchange, const JobId& job) {
                 parts.client.requeue(job, answering_result<JobResult>(parts, exchange, state_answer));
               }));
  server.route("GET", "/v1/groups/{name}", [parts](const ExchangePtr& exchange) { group(parts, exchange, false); });
  server.route("POST", "/v1/groups/{name}/cancel",
               [parts](const ExchangePtr& exchange) { group(parts, exchange, true); });
  server.route("GET", "/v1/queue", [parts](const ExchangePtr& exchange) {
    parts.client.status(answering_queue(parts, exchange), kStatusWithin);
  });
  server.route("POST", "/v1/queue", [parts](const ExchangePtr& exchange) { control(parts, exchange); });
}

}  // namespace optserve::gateway

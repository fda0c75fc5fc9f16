#include <charconv>
#include <optional>

#include "gateway/service/completion_call.h"
#include "gateway/service/job_events_call.h"
#include "gateway/service/routes.h"
#include "http_api/openai/json_text.h"
#include "http_api/responses/response_request.h"

namespace optserve::gateway {
namespace {

using ExchangePtr = std::shared_ptr<http::Exchange>;
using http_api::ApiError;
using http_api::ResponseFacts;
using protocol::JobResult;

http::Answer response_answer(const ResponseFacts& facts, const JobResult& result) {
  return json_answer(http_api::json_text(http_api::response_json(facts, result)));
}

void create_response(const GatewayParts& parts, const ExchangePtr& exchange) {
  const http::Request& request = exchange->request();
  http_api::Parsed<http_api::ResponseRequest> parsed =
      http_api::parse_response(request.body, parts.models, context_of(parts, request));
  if (!parsed.ok()) return exchange->answer(error_answer(parsed.error()));
  http_api::ResponseRequest made = std::move(parsed).value();
  const ResponseFacts facts = std::move(made.facts);
  AnswerForm form;
  form.body = [facts](const http_api::CompletionRequest&, const http_api::CompletionAnswer& answer) {
    return http_api::json_text(http_api::response_json(facts, *answer.choices().front().result));
  };
  form.stream = [facts](const http_api::CompletionRequest&, const AnswerForm::Outcomes& outcomes) {
    return http_api::response_form(facts, *outcomes.front().job);
  };
  form.background = [facts](const http_api::CompletionRequest&, const AnswerForm::Outcomes& outcomes) {
    JobResult queued;
    queued.job = *outcomes.front().job;
    return response_answer(facts, queued);
  };
  serve_call(parts, exchange, std::move(made.completion), std::move(form));
}

ApiError unknown_response(std::string_view id) {
  return http_api::error_of(
      refuse(ErrorCode::kNotFound, "there is no response '" + std::string(id.substr(0, 64)) + "'"));
}

// Calls `work` on the server's thread with the job of the path, if it is a response that the caller may see.
template <class Work>
http::Handler with_response(const GatewayParts& parts, Work work) {
  return [parts, work](const ExchangePtr& exchange) {
    const std::string id(exchange->request().parameter("id"));
    const std::optional<JobId> job = http_api::job_of_response(id);
    if (!job) return exchange->answer(error_answer(unknown_response(id)));
    exchange->request().note("job", job->hex());
    parts.client.get(*job, [parts, work, exchange, id](Result<JobResult> result) {
      parts.server.post([work, exchange, id, result = std::move(result)] {
        if (!result.ok() && result.refusal().code != ErrorCode::kNotFound) {
          return exchange->answer(error_answer(http_api::error_of(result.refusal())));
        }
        std::optional<ResponseFacts> facts;
        if (result.ok() && caller_of(exchange->request()).may_see(result.value().tenant)) {
          facts = http_api::facts_of_group(result.value().group);
        }
        if (!facts) return exchange->answer(error_answer(unknown_response(id)));
        work(exchange, *facts, result.value());
      });
    });
  };
}

// -1: from the beginning.
http_api::Parsed<int64_t> starting_after(const http::Request& request) {
  const std::string* text = request.query("starting_after");
  if (text == nullptr) return int64_t{-1};
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error == std::errc() && end == text->data() + text->size() && value >= 0) return value;
  return http_api::invalid_value("starting_after", "starting_after: expected the sequence_number of an event");
}

void retrieve(const GatewayParts& parts, const ExchangePtr& exchange, const ResponseFacts& facts,
              const JobResult& result) {
  const std::string* stream = exchange->request().query("stream");
  if (stream != nullptr && *stream != "true" && *stream != "false") {
    return exchange->answer(error_answer(http_api::invalid_value("stream", "stream: expected true or false")));
  }
  const http_api::Parsed<int64_t> after = starting_after(exchange->request());
  if (!after.ok()) return exchange->answer(error_answer(after.error()));
  if (stream == nullptr || *stream == "false") return exchange->answer(response_answer(facts, result));
  std::unique_ptr<http_api::FollowForm> form = http_api::response_follow_form(facts, result.job, after.value());
  if (!protocol::is_terminal(result.state)) {
    return follow_job(parts, exchange, result.job, http_api::ResponseEvents::bytes_before(after.value()),
                      std::move(form));
  }
  exchange->begin_stream(200, http::sse_headers());
  std::string frames = form->begin();
  frames += form->on_finished(result);
  exchange->write(frames);
  exchange->end();
}

void cancel(const GatewayParts& parts, const ExchangePtr& exchange, const ResponseFacts& facts,
            const JobResult& result) {
  parts.client.cancel(result.job, [parts, exchange, facts](Result<JobResult> cancelled) {
    parts.server.post([exchange, facts, cancelled = std::move(cancelled)] {
      exchange->answer(cancelled.ok() ? response_answer(facts, cancelled.value())
                                      : error_answer(http_api::error_of(cancelled.refusal())));
    });
  });
}

// Cancels its job, if it is still running, and deletes it.
void remove(const GatewayParts& parts, const ExchangePtr& exchange, const JobResult& result) {
  const auto answer = [&server = parts.server, exchange](http::Answer made) {
    server.post([exchange, made = std::move(made)] { exchange->answer(made); });
  };
  parts.client.cancel(result.job, [parts, answer](const Result<JobResult>& ended) {
    if (!ended.ok()) return answer(error_answer(http_api::error_of(ended.refusal())));
    const JobId job = ended.value().job;
    protocol::JobFilter filter;
    filter.job = job;
    parts.client.purge(filter, [answer, job](const Result<int64_t>& purged) {
      if (!purged.ok()) return answer(error_answer(http_api::error_of(purged.refusal())));
      answer(json_answer(
          http_api::json_text({{"id", http_api::response_id(job)}, {"object", "response"}, {"deleted", true}})));
    });
  });
}

}  // namespace

void add_response_routes(const GatewayParts& parts) {
  http::Server& server = parts.server;
  server.route("POST", "/v1/responses", [parts](const ExchangePtr& exchange) { create_response(parts, exchange); },
               {.body_bytes_max = kCompletionBodyBytesMax});
  server.route("GET", "/v1/responses/{id}",
               with_response(parts, [parts](const ExchangePtr& exchange, const ResponseFacts& facts,
                                            const JobResult& result) { retrieve(parts, exchange, facts, result); }));
  server.route("DELETE", "/v1/responses/{id}",
               with_response(parts, [parts](const ExchangePtr& exchange, const ResponseFacts&,
                                            const JobResult& result) { remove(parts, exchange, result); }));
  server.route("POST", "/v1/responses/{id}/cancel",
               with_response(parts, [parts](const ExchangePtr& exchange, const ResponseFacts& facts,
                                            const JobResult& result) { cancel(parts, exchange, facts, result); }));
}

}  // namespace optserve::gateway

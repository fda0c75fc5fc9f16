// Completions in all forms: one request, from its jobs to its answer.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/service/answers.h"
#include "gateway/service/gateway_parts.h"
#include "http/exchange.h"
#include "http_api/openai/completion_answer.h"
#include "http_api/openai/completion_request.h"
#include "http_api/openai/stream_form.h"

namespace optserve::gateway {

inline constexpr size_t kCompletionBodyBytesMax = 4 << 20;

// How a completion is answered.
struct AnswerForm {
  using Outcomes = std::vector<protocol::SubmitOutcome>;

  // The body of a complete answer that is not streamed.
  std::function<std::string(const http_api::CompletionRequest& request, const http_api::CompletionAnswer& answer)> body;
  std::function<std::unique_ptr<http_api::StreamForm>(const http_api::CompletionRequest& request,
                                                      const Outcomes& outcomes)>
      stream{};
  // Of a request with `background`, whose jobs were all accepted.
  std::function<http::Answer(const http_api::CompletionRequest& request, const Outcomes& outcomes)> background{};
  http::Answer (*error)(const http_api::ApiError& error) = error_answer;
  std::string_view stream_type = "text/event-stream";
};

// What the request brings beside its body.
http_api::RequestContext context_of(const GatewayParts& parts, const http::Request& request);
// Submits the jobs of a request and answers with their results.
void serve_call(const GatewayParts& parts, const std::shared_ptr<http::Exchange>& exchange,
                http_api::Parsed<http_api::CompletionRequest> parsed, AnswerForm form);

// POST /v1/completions
void serve_completion(const GatewayParts& parts, const std::shared_ptr<http::Exchange>& exchange);
// POST /completions, /generate and /engines/{name}/completions
void serve_metaseq(const GatewayParts& parts, const std::shared_ptr<http::Exchange>& exchange);

}  // namespace optserve::gateway

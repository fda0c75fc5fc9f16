#include "gateway/service/completion_call.h"
#include "gateway/service/routes.h"
#include "http_api/chat/chat_request.h"

namespace optserve::gateway {
namespace {

void serve_chat(const GatewayParts& parts, const std::shared_ptr<http::Exchange>& exchange) {
  const http::Request& request = exchange->request();
  AnswerForm form;
  form.body = http_api::chat_body;
  form.stream = [](const http_api::CompletionRequest& made, const AnswerForm::Outcomes&) {
    return http_api::chat_form(made);
  };
  form.background = [](const http_api::CompletionRequest& made, const AnswerForm::Outcomes& outcomes) {
    return json_answer(http_api::background_body(made, outcomes), 202);
  };
  serve_call(parts, exchange, http_api::parse_chat(request.body, parts.models, context_of(parts, request)),
             std::move(form));
}

}  // namespace

void add_chat_routes(const GatewayParts& parts) {
  parts.server.route("POST", "/v1/chat/completions",
                     [parts](const std::shared_ptr<http::Exchange>& exchange) { serve_chat(parts, exchange); },
                     {.body_bytes_max = kCompletionBodyBytesMax});
}

}  // namespace optserve::gateway

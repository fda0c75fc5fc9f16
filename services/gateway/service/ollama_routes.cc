#include "base/build_info.h"
#include "gateway/service/completion_call.h"
#include "gateway/service/routes.h"
#include "http_api/ollama/ollama_request.h"
#include "http_api/openai/json_text.h"

namespace optserve::gateway {
namespace {

using ExchangePtr = std::shared_ptr<http::Exchange>;

http::Answer ollama_error_answer(const http_api::ApiError& error) {
  http::Answer answer = error_answer(error);
  answer.body = http_api::ollama_error_body(error);
  return answer;
}

using Parse = http_api::Parsed<http_api::CompletionRequest> (*)(std::string_view body, const http_api::Models& models,
                                                                const http_api::RequestContext& context);
using Body = std::string (*)(const http_api::CompletionRequest& request, const http_api::CompletionAnswer& answer);
using Lines = std::unique_ptr<http_api::StreamForm> (*)(const http_api::CompletionRequest& request);

void add_ollama_post(const GatewayParts& parts, const char* path, Parse parse, Body body, Lines lines) {
  parts.server.route("POST", path,
                     [=](const ExchangePtr& exchange) {
                       const http::Request& request = exchange->request();
                       AnswerForm form;
                       form.body = body;
                       form.stream = [lines](const http_api::CompletionRequest& made, const AnswerForm::Outcomes&) {
                         return lines(made);
                       };
                       form.error = ollama_error_answer;
                       form.stream_type = http_api::kNdjson;
                       serve_call(parts, exchange, parse(request.body, parts.models, context_of(parts, request)),
                                  std::move(form));
                     },
                     {.body_bytes_max = kCompletionBodyBytesMax});
}

}  // namespace

void add_ollama_routes(const GatewayParts& parts) {
  parts.server.route("GET", "/api/version", [](const ExchangePtr& exchange) {
    exchange->answer(json_answer("{\"version\":" + http_api::json_string(build_version()) + "}"));
  });
  parts.server.route("GET", "/api/tags", [parts](const ExchangePtr& exchange) {
    exchange->answer(json_answer(http_api::ollama_models_body(parts.models, false, parts.clock.wall_ms() / 1'000)));
  });
  parts.server.route("GET", "/api/ps", [parts](const ExchangePtr& exchange) {
    exchange->answer(json_answer(http_api::ollama_models_body(parts.models, true, parts.clock.wall_ms() / 1'000)));
  });
  parts.server.route(
      "POST", "/api/show",
      [parts](const ExchangePtr& exchange) {
        http_api::Parsed<std::string> body =
            http_api::ollama_show_body(exchange->request().body, parts.models, parts.chat_template);
        exchange->answer(body.ok() ? json_answer(std::move(body).value()) : ollama_error_answer(body.error()));
      },
      {.body_bytes_max = kCompletionBodyBytesMax});
  add_ollama_post(parts, "/api/generate", http_api::parse_ollama_generate, http_api::ollama_generate_body,
                  http_api::ollama_generate_form);
  add_ollama_post(parts, "/api/chat", http_api::parse_ollama_chat, http_api::ollama_chat_body,
                  http_api::ollama_chat_form);
}

}  // namespace optserve::gateway

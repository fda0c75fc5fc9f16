#include "gateway/service/answers.h"

namespace optserve::gateway {

http::Answer json_answer(std::string body, int status) {
  return {.status = status, .content_type = "application/json", .body = std::move(body)};
}

http::Answer error_answer(const http_api::ApiError& error) {
  http::Answer answer = json_answer(http_api::error_body(error), error.status);
  for (const auto& [name, value] : http_api::error_headers(error)) answer.headers.set(name, value);
  if (error.status == 401) answer.headers.set("WWW-Authenticate", "Bearer");
  return answer;
}

http_api::ApiError unknown_job(std::string_view id) {
  return http_api::error_of(refuse(ErrorCode::kNotFound, "there is no job '" + std::string(id) + "'"));
}

http::Answer server_error_answer(const http::Request* request, int status, std::string_view message) {
  if (status == 404 && request != nullptr) {
    return error_answer(http_api::unknown_route(request->method, request->target.path));
  }
  http_api::ApiError error{.status = status, .message = std::string(message)};
  if (status == 405) error.code = "method_not_allowed";
  if (status == 413 || status == 414 || status == 431) error.code = "request_too_large";
  if (status == 503) error.retry_after_ms = 1'000;
  return error_answer(error);
}

}  // namespace optserve::gateway

// Errors and JSON of the API as answers of the HTTP server.
#pragma once

#include <string>
#include <string_view>

#include "http/message/answer.h"
#include "http/message/request.h"
#include "http_api/openai/api_error.h"

namespace optserve::gateway {

http::Answer json_answer(std::string body, int status = 200);
http::Answer error_answer(const http_api::ApiError& error);
// A job that does not exist, or that the caller may not know of.
http_api::ApiError unknown_job(std::string_view id);
// For what the HTTP server itself refuses. `request` may be null.
http::Answer server_error_answer(const http::Request* request, int status, std::string_view message);

}  // namespace optserve::gateway

// The completions of Metaseq's API (`POST /completions`, `/engines/{name}/completions` and `/generate`): its fields and
// its answers, without its defects (docs/http_api.md names them).
#pragma once

#include <string>
#include <string_view>

#include "http_api/openai/completion_answer.h"
#include "http_api/openai/completion_request.h"
#include "http_api/openai/request_fields.h"

namespace optserve::http_api {

const FieldTable& metaseq_fields();

// The result is a completion request with its jobs.
Parsed<CompletionRequest> parse_metaseq(std::string_view body, const Models& models, const RequestContext& context);

// Needs a complete answer without error.
std::string metaseq_body(const CompletionRequest& request, const CompletionAnswer& answer);

}  // namespace optserve::http_api

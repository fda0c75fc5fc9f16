// The completions of Metaseq's API (`POST /completions`, `/engines/{name}/completions` and `/generate`): its fields and
// its answers, without its defects (docs/http_api.md names them).
#pragma once

#include <string>
#include <string_view>

#include "gateway/openai/completion_answer.h"
#include "gateway/openai/completion_request.h"
#include "gateway/openai/request_fields.h"

namespace optserve::gateway {

const FieldTable& metaseq_fields();

// The jobs are those of the request that this gives.
Parsed<CompletionRequest> parse_metaseq(std::string_view body, const Models& models, const RequestContext& context);

// Needs a complete answer without error.
std::string metaseq_body(const CompletionRequest& request, const CompletionAnswer& answer);

}  // namespace optserve::gateway

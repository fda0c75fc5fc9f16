// The table of the fields of `POST /v1/completions`.
#pragma once

#include "http_api/openai/request_fields.h"

namespace optserve::http_api {

// OpenAI's fields first, then vLLM's, then those of optserve; sampling parameters have the ranges of
// sampling/sampling_params.h.
const FieldTable& completion_fields();

// A form's own fields, followed by those fields of completions that mean the same in it.
FieldTable with_completion_fields(FieldTable own, bool (*is_same)(std::string_view completion_field));

// The name that a field of JobSpec has in a request: "max_tokens" for "max_new_tokens". Fields that no request names
// map to themselves.
std::string_view request_name_of(std::string_view job_field);

}  // namespace optserve::http_api

// `POST /tokenize`, `POST /detokenize` and `GET /tokenizer_info`, with vLLM's fields.
#pragma once

#include <string>
#include <string_view>

#include "http_api/openai/api_error.h"
#include "http_api/openai/models.h"
#include "http_api/openai/request_fields.h"

namespace optserve::http_api {

const FieldTable& tokenize_fields();
const FieldTable& detokenize_fields();

// {"prompt": text, "add_special_tokens": true, "return_token_strs": false}
//   -> {"count": n, "max_model_len": n, "tokens": [ids], "token_strs": [texts] or null}
Parsed<std::string> tokenize(std::string_view body, const Models& models);
// {"tokens": [ids]} -> {"prompt": text}
Parsed<std::string> detokenize(std::string_view body, const Models& models);
// `model` may be empty, which means the only model.
Parsed<std::string> tokenizer_info(std::string_view model, const Models& models);

}  // namespace optserve::http_api

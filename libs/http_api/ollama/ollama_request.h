// Ollama's API as far as user interfaces need it: `POST /api/generate` and `/api/chat`, and the lists of models.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "http_api/openai/completion_answer.h"
#include "http_api/openai/completion_request.h"
#include "http_api/openai/request_fields.h"
#include "http_api/openai/stream_form.h"

namespace optserve::http_api {

inline constexpr std::string_view kNdjson = "application/x-ndjson";

const FieldTable& ollama_generate_fields();
const FieldTable& ollama_chat_fields();

// The results are completion requests with their jobs. The prompt of `generate` is continued as it is with `raw` or if
// the gateway has no chat template; otherwise it becomes the message of a user.
Parsed<CompletionRequest> parse_ollama_generate(std::string_view body, const Models& models,
                                                const RequestContext& context);
Parsed<CompletionRequest> parse_ollama_chat(std::string_view body, const Models& models, const RequestContext& context);

// Need a complete answer without error.
std::string ollama_generate_body(const CompletionRequest& request, const CompletionAnswer& answer);
std::string ollama_chat_body(const CompletionRequest& request, const CompletionAnswer& answer);
// JSON objects, one per line. `request` outlives them.
std::unique_ptr<StreamForm> ollama_generate_form(const CompletionRequest& request);
std::unique_ptr<StreamForm> ollama_chat_form(const CompletionRequest& request);

// {"error": text}
std::string ollama_error_body(const ApiError& error);

// POST /api/show: what is known about a model.
const FieldTable& ollama_show_fields();
Parsed<std::string> ollama_show_body(std::string_view body, const Models& models, const ChatTemplate* chat);

// GET /api/tags; /api/ps with `are_running`.
std::string ollama_models_body(const Models& models, bool are_running, int64_t now_s);

}  // namespace optserve::http_api

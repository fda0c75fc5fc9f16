// `POST /v1/chat/completions`: its fields and its answers. A chat is a completion of the prompt that the template makes
// of its messages.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "http_api/openai/completion_answer.h"
#include "http_api/openai/completion_request.h"
#include "http_api/openai/request_fields.h"
#include "http_api/openai/stream_form.h"

namespace optserve::http_api {

const FieldTable& chat_fields();
// The fields that completions do not have, or that mean something else there.
const FieldTable& chat_own_fields();

// The result is a completion request with its jobs. Refuses everything if there is no RequestContext::chat.
Parsed<CompletionRequest> parse_chat(std::string_view body, const Models& models, const RequestContext& context);

// Needs a complete answer without error.
std::string chat_body(const CompletionRequest& request, const CompletionAnswer& answer);
// `request` outlives it.
std::unique_ptr<StreamForm> chat_form(const CompletionRequest& request);

// The log-probabilities of an output in the form of chats: {"content": […], "refusal": null}.
nlohmann::ordered_json chat_logprobs_json(const CompletionRequest& request, const Output& output);

}  // namespace optserve::http_api

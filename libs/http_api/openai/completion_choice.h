// One choice of an answer, from the result of its job.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "http_api/openai/completion_request.h"
#include "protocol/message_types.h"

namespace optserve::http_api {

// An output within a result: the result's own, or a hypothesis of a beam search.
struct Output {
  std::string_view text;
  std::span<const TokenId> ids;
  sampling::FinishReason finish_reason = sampling::FinishReason::kNone;
  std::span<const float> logprobs{};  // of the ids, or empty
  std::span<const std::vector<sampling::TokenLogprob>> best{};
};

// Number of outputs that a result of this request has, at most n; those of a request that is not shared have one.
int count_outputs(const CompletionRequest& request, const protocol::JobResult& result);
// Output `i` of a result; views into `result`.
Output output_of(const CompletionRequest& request, const protocol::JobResult& result, int i);

// Everything of the choice except "index" and "text": logprobs, finish_reason, stop_reason, and whatever else was
// requested. `prompt` is the index of its prompt, `text` the choice's whole text.
nlohmann::ordered_json choice_facts(const CompletionRequest& request, size_t prompt, const protocol::JobResult& result,
                                    const Output& output);

// {"tokens": […], "token_logprobs": […], "top_logprobs": […], "text_offset": […]}: one entry for each id of the output
// or, with `echo`, for each id of the prompt and of the output. The first id of a prompt has null. For other ids,
// top_logprobs has the requested number of best tokens, and the token itself.
nlohmann::ordered_json logprobs_json(const CompletionRequest& request, size_t prompt, const protocol::JobResult& result,
                                     const Output& output);

// "stop" or "length".
std::string_view finish_word(sampling::FinishReason reason);
// What ended the output: a stop string, a stop id, or null for the end of the text or for length.
nlohmann::ordered_json stop_reason(const CompletionRequest& request, const Output& output);

nlohmann::ordered_json usage_json(int64_t prompt_tokens, int64_t completion_tokens);
// vLLM's "metrics", from the times that the scheduler measured.
nlohmann::ordered_json metrics_json(const protocol::JobResult& result);

}  // namespace optserve::http_api

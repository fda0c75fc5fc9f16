// What the body of `POST /v1/completions` asks for, and the jobs that it becomes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "http_api/openai/api_error.h"
#include "http_api/openai/models.h"
#include "http_api/openai/prompts.h"
#include "protocol/message_types.h"

namespace optserve::http_api {

class ChatTemplate;

// What a request brings beside its body. The caller fills it in; everything but the id and the numbers may be empty.
struct RequestContext {
  std::string request_id;              // of the answer's `id`: "cmpl-" + request_id
  int64_t created = 0;                 // seconds since 1970
  uint64_t random = 0;                 // seeds of a request that has neither seed nor idempotency key: a random number
  std::string tenant{};                // of the API key; if empty, `user` names the tenant
  std::string idempotency_key{};       // header `Idempotency-Key`; the body's field wins
  int64_t patience_ms = 0;             // how long the client waits (x-stainless-read-timeout); 0: not known
  std::string traceparent{};           // header `traceparent`, as read_traceparent() gives it; empty: none
  const ChatTemplate* chat = nullptr;  // how messages become a prompt; null: they do not
};

struct CompletionRequest {
  Model model;
  std::string id;  // "cmpl-…"
  int64_t created = 0;
  std::vector<Prompt> prompts;
  int n = 1;        // choices for each prompt
  int best_of = 1;  // outputs that the n best are taken from
  bool echo = false;
  std::optional<int> logprobs{};
  std::optional<int> prompt_logprobs{};  // vLLM's field of the choice
  bool stream = false;
  bool include_usage = false;
  bool background = false;     // answer with the ids of the jobs, at once
  bool keeps_running = false;  // a client that goes away cancels nothing
  bool return_token_ids = false;
  bool tokens_as_ids = false;  // lists of log-probabilities name tokens by their ids
  bool return_metrics = false;
  uint64_t seed = 0;         // of the first output of each prompt
  bool has_seed = false;     // it was asked for
  protocol::JobSpec job;     // what all jobs have in common
  std::string lone_group{};  // of the job of a request that has one

  // Whether one job gives all n choices of its prompt: hypotheses of a beam search, or choices that cannot differ.
  bool is_shared() const;
  int jobs_per_prompt() const { return is_shared() ? 1 : best_of; }
  size_t num_jobs() const { return prompts.size() * static_cast<size_t>(jobs_per_prompt()); }
  size_t num_choices() const { return prompts.size() * static_cast<size_t>(n); }

  // All jobs, prompt by prompt; they are valid (protocol::validate). Equal for equal requests with a seed or an
  // idempotency key.
  std::vector<protocol::JobSpec> jobs() const;
  // The job of a prompt before choices, keys and groups make it several.
  protocol::JobSpec job_of(const Prompt& prompt) const;
};

// Reads a body. Errors name the field. Tokenizes prompts where the request needs their ids.
Parsed<CompletionRequest> parse_completion(std::string_view body, const Models& models, const RequestContext& context);

}  // namespace optserve::http_api

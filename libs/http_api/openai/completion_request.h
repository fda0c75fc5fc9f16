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

// What a request consists of besides its body. The caller fills it in; everything but the id and the numbers may be
// empty.
struct RequestContext {
  std::string request_id;              // of the answer's `id`: "cmpl-" + request_id
  int64_t created = 0;                 // seconds since 1970
  uint64_t random = 0;                 // for the seeds of a request with neither seed nor idempotency key
  std::string tenant{};                // of the API key; if empty, `user` names the tenant
  std::string idempotency_key{};       // header `Idempotency-Key`; the body's field wins
  int64_t patience_ms = 0;             // how long the client waits (x-stainless-read-timeout); 0: not known
  std::string traceparent{};           // header `traceparent`, as read_traceparent() gives it; empty: none
  const ChatTemplate* chat = nullptr;  // how messages become a prompt; null if they are refused
};

struct CompletionRequest {
  Model model;
  std::string id;  // "cmpl-…"
  int64_t created = 0;
  std::vector<Prompt> prompts;
  int n = 1;        // choices for each prompt
  int best_of = 1;  // outputs of which the n best are taken
  bool echo = false;
  std::optional<int> logprobs{};
  std::optional<int> prompt_logprobs{};  // vLLM's field of the choice
  bool stream = false;
  bool include_usage = false;
  bool background = false;     // answer at once with the ids of the jobs
  bool keeps_running = false;  // jobs go on when the client goes away
  bool return_token_ids = false;
  bool tokens_as_ids = false;  // in lists of log-probabilities, tokens are named by their ids
  bool return_metrics = false;
  uint64_t seed = 0;         // of the first output of each prompt
  bool has_seed = false;     // it was requested
  protocol::JobSpec job;     // what all jobs have in common
  std::string lone_group{};  // the group of the job of a request that has only one

  // Whether one job gives all n choices of its prompt, because they are hypotheses of a beam search or cannot differ.
  bool is_shared() const;
  int jobs_per_prompt() const { return is_shared() ? 1 : best_of; }
  size_t num_jobs() const { return prompts.size() * static_cast<size_t>(jobs_per_prompt()); }
  size_t num_choices() const { return prompts.size() * static_cast<size_t>(n); }

  // All jobs, prompt by prompt; they are valid (protocol::validate). Equal for equal requests with a seed or an
  // idempotency key.
  std::vector<protocol::JobSpec> jobs() const;
  // The job of a prompt, before it is multiplied for choices and given keys and groups.
  protocol::JobSpec job_of(const Prompt& prompt) const;
};

// Reads a body. Errors name the field. Tokenizes prompts if the request needs their ids.
Parsed<CompletionRequest> parse_completion(std::string_view body, const Models& models, const RequestContext& context);

}  // namespace optserve::http_api

// The body of an answer to `POST /v1/completions` that is not streamed.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "http_api/openai/completion_choice.h"
#include "http_api/openai/completion_request.h"
#include "http_api/openai/stream_form.h"
#include "protocol/client_messages.h"

namespace optserve::http_api {

// Collects the results of a request's jobs, in any order.
class CompletionAnswer {
 public:
  explicit CompletionAnswer(const CompletionRequest& request);  // `request` outlives this

  // `job` is the index in request.jobs(); each once, in a terminal state.
  void add(size_t job, protocol::JobResult result);
  bool is_complete() const { return missing_ == 0; }

  // The error of a job that did not succeed, for which there is no answer even if other jobs have results. Needs all
  // results.
  std::optional<ApiError> error() const;
  // Needs all results, and no error().
  std::string body() const;

  // The choices, for answers in other forms.
  struct Choice {
    size_t prompt;
    const protocol::JobResult* result;
    Output output;
    std::string text;  // with the prompt, if `echo` asks for it
  };
  std::vector<Choice> choices() const;
  TokenUsage usage() const;

 private:
  // The results that become choices, in their order.
  std::vector<const protocol::JobResult*> best_of_prompt(size_t prompt) const;

  const CompletionRequest* request_;
  std::vector<std::optional<protocol::JobResult>> results_;
  size_t missing_;
};

// The answer (202) to a request with `background`: the ids of its jobs. Needs outcomes without errors.
std::string background_body(const CompletionRequest& request, const std::vector<protocol::SubmitOutcome>& outcomes);

}  // namespace optserve::http_api

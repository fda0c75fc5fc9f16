#include "http_api/openai/completion_answer.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "client/choices.h"
#include "http_api/openai/json_text.h"

namespace optserve::http_api {
namespace {

using nlohmann::ordered_json;
using protocol::JobResult;

// OpenAI's best_of compares outputs by this number, whatever their lengths.
double logprob_per_token(const JobResult& result) {
  if (result.ids.empty()) return -std::numeric_limits<double>::infinity();
  return client::cumulative_logprob(result) / static_cast<double>(result.ids.size());
}

}  // namespace

CompletionAnswer::CompletionAnswer(const CompletionRequest& request)
    : request_(&request), results_(request.num_jobs()), missing_(results_.size()) {}

void CompletionAnswer::add(size_t job, JobResult result) {
  check(job < results_.size() && !results_[job], "each job has one result");
  check(protocol::is_terminal(result.state), "a job that has ended");
  results_[job] = std::move(result);
  --missing_;
}

std::optional<ApiError> CompletionAnswer::error() const {
  check(is_complete(), "all results are there");
  for (const auto& result : results_) {
    if (auto error = error_of(*result, request_->model.context)) return error;
  }
  return std::nullopt;
}

std::vector<const JobResult*> CompletionAnswer::best_of_prompt(size_t prompt) const {
  const auto count = static_cast<size_t>(request_->jobs_per_prompt());
  std::vector<const JobResult*> results;
  for (size_t i = 0; i < count; ++i) results.push_back(&*results_[prompt * count + i]);
  const auto n = static_cast<size_t>(request_->n);
  if (results.size() <= n) return results;
  std::ranges::stable_sort(results, std::greater<>{}, [](const JobResult* one) { return logprob_per_token(*one); });
  results.resize(n);
  return results;
}

std::vector<CompletionAnswer::Choice> CompletionAnswer::choices() const {
  check(!error(), "all jobs succeeded");
  std::vector<Choice> choices;
  for (size_t prompt = 0; prompt < request_->prompts.size(); ++prompt) {
    const std::string echo = request_->echo ? request_->prompts[prompt].text : "";
    for (const JobResult* result : best_of_prompt(prompt)) {
      for (int i = 0; i < count_outputs(*request_, *result); ++i) {
        const Output output = output_of(*request_, *result, i);
        choices.push_back({prompt, result, output, echo + std::string(output.text)});
      }
    }
  }
  return choices;
}

// Prompts count once, and all computed outputs count, including those that best_of leaves out.
TokenUsage CompletionAnswer::usage() const {
  TokenUsage usage;
  const auto per_prompt = static_cast<size_t>(request_->jobs_per_prompt());
  for (size_t job = 0; job < results_.size(); ++job) {
    const JobResult& result = *results_[job];
    if (job % per_prompt == 0) usage.prompt_tokens += result.prompt_tokens;
    for (int i = 0; i < count_outputs(*request_, result); ++i) {
      usage.completion_tokens += static_cast<int64_t>(output_of(*request_, result, i).ids.size());
    }
  }
  return usage;
}

std::string CompletionAnswer::body() const {
  ordered_json choices = ordered_json::array();
  // The choices of a prompt begin at its index times n, even if a beam search has found fewer.
  int index = 0;
  size_t last_prompt = 0;
  for (const Choice& choice : this->choices()) {
    if (choice.prompt != last_prompt) index = static_cast<int>(choice.prompt) * request_->n;
    last_prompt = choice.prompt;
    ordered_json object{{"index", index++}, {"text", choice.text}};
    object.update(choice_facts(*request_, choice.prompt, *choice.result, choice.output));
    choices.push_back(std::move(object));
  }
  const TokenUsage used = usage();
  ordered_json body{{"id", request_->id},
                    {"object", "text_completion"},
                    {"created", request_->created},
                    {"model", request_->model.name},
                    {"choices", std::move(choices)},
                    {"usage", usage_json(used.prompt_tokens, used.completion_tokens)}};
  if (!request_->model.fingerprint.empty()) body["system_fingerprint"] = request_->model.fingerprint;
  if (request_->return_metrics && results_.size() == 1) body["metrics"] = metrics_json(*results_.front());
  return json_text(body);
}

std::string background_body(const CompletionRequest& request, const std::vector<protocol::SubmitOutcome>& outcomes) {
  check(!first_error(outcomes) && outcomes.size() == request.num_jobs(), "every job is accepted");
  ordered_json jobs = ordered_json::array();
  for (const protocol::SubmitOutcome& outcome : outcomes) {
    jobs.push_back({{"job", outcome.job->hex()},
                    {"position", outcome.position},
                    {"eta_ms", outcome.eta_ms},
                    {"duplicate", outcome.duplicate}});
  }
  return json_text({{"id", request.id},
                    {"object", "text_completion.jobs"},
                    {"created", request.created},
                    {"model", request.model.name},
                    {"group", request.num_jobs() > 1 ? request.job.group : ""},
                    {"jobs", std::move(jobs)}});
}

}  // namespace optserve::http_api

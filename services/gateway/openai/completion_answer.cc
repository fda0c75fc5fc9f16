#include "gateway/openai/completion_answer.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "client/choices.h"
#include "gateway/openai/completion_choice.h"
#include "gateway/openai/json_text.h"

namespace optserve::gateway {
namespace {

using nlohmann::ordered_json;
using protocol::JobResult;

// OpenAI's best_of compares outputs by this, whatever their lengths.
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

std::string CompletionAnswer::body() const {
  check(!error(), "all jobs succeeded");
  ordered_json choices = ordered_json::array();
  int64_t prompt_tokens = 0, completion_tokens = 0;
  for (size_t prompt = 0; prompt < request_->prompts.size(); ++prompt) {
    int index = static_cast<int>(prompt) * request_->n;
    const std::vector<const JobResult*> results = best_of_prompt(prompt);
    prompt_tokens += results.front()->prompt_tokens;
    for (const JobResult* result : results) {
      for (int i = 0; i < count_outputs(*request_, *result); ++i) {
        const Output output = output_of(*request_, *result, i);
        ordered_json choice{
            {"index", index++},
            {"text", (request_->echo ? request_->prompts[prompt].text : "") + std::string(output.text)}};
        choice.update(choice_facts(*request_, prompt, *result, output));
        choices.push_back(std::move(choice));
        if (request_->is_shared()) completion_tokens += static_cast<int64_t>(output.ids.size());
      }
    }
  }
  if (!request_->is_shared()) {
    for (const auto& result : results_) completion_tokens += static_cast<int64_t>(result->ids.size());
  }
  ordered_json body{{"id", request_->id},
                    {"object", "text_completion"},
                    {"created", request_->created},
                    {"model", request_->model.name},
                    {"choices", std::move(choices)},
                    {"usage", usage_json(prompt_tokens, completion_tokens)}};
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

}  // namespace optserve::gateway

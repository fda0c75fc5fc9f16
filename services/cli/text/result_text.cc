#include "cli/text/result_text.h"

#include <nlohmann/json.hpp>
#include <numeric>

#include "cli/commands/command.h"
#include "cli/text/text_table.h"

namespace optserve::cli {
namespace {

using nlohmann::ordered_json;
using protocol::JobResult;

ordered_json error_name(const std::optional<ErrorCode>& error) {
  return error ? ordered_json(std::string(error_code_name(*error))) : ordered_json();
}

ordered_json timings_json(const protocol::Timings& timings) {
  return {{"encode_ms", timings.encode_ms},
          {"queue_ms", timings.queue_ms},
          {"first_token_ms", timings.first_token_ms},
          {"run_ms", timings.run_ms},
          {"total_ms", timings.total_ms}};
}

}  // namespace

std::string result_json(const JobResult& result) {
  ordered_json root{{"job", result.job.hex()},
                    {"key", result.key},
                    {"tenant", result.tenant},
                    {"group", result.group},
                    {"state", protocol::job_state_name(result.state)},
                    {"finish_reason", protocol::finish_reason_name(result.finish_reason)},
                    {"error", error_name(result.error)},
                    {"message", result.message},
                    {"text", result.text},
                    {"ids", result.ids},
                    {"prompt_tokens", result.prompt_tokens},
                    {"output_tokens", result.ids.size()},
                    {"attempts", result.attempts},
                    {"losses", result.losses},
                    {"position", result.position},
                    {"eta_ms", result.eta_ms},
                    {"progress_done", result.progress_done},
                    {"progress_total", result.progress_total},
                    {"timings", timings_json(result.timings)}};
  if (!result.prompt_ids.empty()) root["prompt_ids"] = result.prompt_ids;
  if (!result.prompt_logprobs.empty()) root["prompt_logprobs"] = result.prompt_logprobs;
  if (!result.logprobs.empty()) {
    root["logprobs"] = result.logprobs;
    root["cumulative_logprob"] = std::accumulate(result.logprobs.begin(), result.logprobs.end(), 0.0);
    ordered_json best = ordered_json::array();
    for (const auto& tokens : result.best) {
      ordered_json& of_token = best.emplace_back(ordered_json::array());
      for (const sampling::TokenLogprob& token : tokens) {
        of_token.push_back({{"id", token.id}, {"logprob", token.logprob}});
      }
    }
    root["best"] = std::move(best);
  }
  for (const protocol::Hypothesis& hypothesis : result.hypotheses) {
    root["hypotheses"].push_back({{"text", hypothesis.text},
                                  {"ids", hypothesis.ids},
                                  {"logprob", hypothesis.logprob},
                                  {"score", hypothesis.score},
                                  {"finish_reason", protocol::finish_reason_name(hypothesis.finish_reason)}});
  }
  return json_line(root);
}

std::string outcome_json(const protocol::SubmitOutcome& outcome) {
  return json_line({{"job", outcome.job ? ordered_json(outcome.job->hex()) : ordered_json()},
                    {"position", outcome.position},
                    {"eta_ms", outcome.eta_ms},
                    {"retry_after_ms", outcome.retry_after_ms},
                    {"duplicate", outcome.duplicate},
                    {"error", error_name(outcome.error)},
                    {"message", outcome.message}});
}

std::string place_text(uint32_t position, int64_t eta_ms) {
  std::string text = position == 0   ? "next to start"
                     : position == 1 ? "1 job before it"
                                     : std::to_string(position) + " jobs before it";
  if (eta_ms >= 0) text += ", starts in about " + duration_text(eta_ms);
  return text;
}

std::string waiting_text(const protocol::JobEvent& event) {
  if (event.state != protocol::JobState::kQueued || event.text_offset + event.text.size() > 0) return "";
  return "queued: " + place_text(event.position, event.eta_ms);
}

std::string result_summary(const JobResult& result) {
  std::string text = "job " + result.job.hex() + ": " + std::string(protocol::job_state_name(result.state));
  if (result.finish_reason != sampling::FinishReason::kNone) {
    text += " (" + std::string(protocol::finish_reason_name(result.finish_reason)) + ")";
  }
  if (result.error) text += ", " + std::string(error_code_name(*result.error)) + ": " + result.message;
  if (result.prompt_tokens > 0 || !result.ids.empty()) {
    text += ", " + std::to_string(result.prompt_tokens) + " prompt and " + std::to_string(result.ids.size()) +
            " output tokens";
  }
  return text + "\n";
}

int exit_status_of(const JobResult& result) {
  return result.state == protocol::JobState::kSucceeded ? kExitOk : kExitFailed;
}

}  // namespace optserve::cli

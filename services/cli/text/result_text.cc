#include "cli/text/result_text.h"

#include <nlohmann/json.hpp>

#include "cli/commands/command.h"
#include "cli/text/text_table.h"
#include "job_json/job_json.h"

namespace optserve::cli {

using protocol::JobResult;

std::string result_json(const JobResult& result) { return json_line(job_json::result_json(result)); }

std::string outcome_json(const protocol::SubmitOutcome& outcome) { return json_line(job_json::outcome_json(outcome)); }

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

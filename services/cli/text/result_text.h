// Results of jobs as text for people and as JSON for programs.
#pragma once

#include <string>

#include "protocol/client_messages.h"

namespace optserve::cli {

// Each is one line of JSON.
std::string result_json(const protocol::JobResult& result);
std::string outcome_json(const protocol::SubmitOutcome& outcome);

// "2 jobs before it, starts in about 12 s": the place of a job in the queue; eta_ms -1: not known.
std::string place_text(uint32_t position, int64_t eta_ms);
// "queued: 2 jobs before it, starts in about 12 s": why nothing is printed yet; empty once the job runs or has text.
std::string waiting_text(const protocol::JobEvent& event);
// "state: succeeded (length), 12 prompt and 64 output tokens, ..."
std::string result_summary(const protocol::JobResult& result);
// 0 if the job succeeded, else 1 (exit_status.h).
int exit_status_of(const protocol::JobResult& result);

}  // namespace optserve::cli

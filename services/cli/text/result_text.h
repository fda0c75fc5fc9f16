// Results of jobs as text for people and as JSON for programs.
#pragma once

#include <string>

#include "protocol/client_messages.h"

namespace optserve::cli {

// One line of JSON each.
std::string result_json(const protocol::JobResult& result);
std::string outcome_json(const protocol::SubmitOutcome& outcome);

// "state: succeeded (length), 12 prompt and 64 output tokens, ..."
std::string result_summary(const protocol::JobResult& result);
// 0 if the job succeeded, else 1 (exit_status.h).
int exit_status_of(const protocol::JobResult& result);

}  // namespace optserve::cli

// Jobs and queues as JSON objects, the same on the command line and over HTTP.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "client/client.h"
#include "protocol/client_messages.h"
#include "protocol/operator_messages.h"

namespace optserve::job_json {

// How a job ended or how far it is. Lists that it does not have are left out.
nlohmann::ordered_json result_json(const protocol::JobResult& result);
// The same without the parts that may be large: text, ids and log-probabilities.
nlohmann::ordered_json state_json(const protocol::JobResult& result);
// The same with what a list of jobs says about it, or null if there is no such list.
nlohmann::ordered_json job_json(const protocol::JobResult& result, const std::optional<protocol::JobSummary>& summary);

nlohmann::ordered_json outcome_json(const protocol::SubmitOutcome& outcome);
nlohmann::ordered_json summary_json(const protocol::JobSummary& job);
nlohmann::ordered_json group_json(const std::string& tenant, const std::string& name,
                                  const protocol::GroupStatus& group);

// {"schedulers": […]}: the state of each, or why it did not answer.
nlohmann::ordered_json status_json(const client::Answers<protocol::SystemStatus>& answers);

// One line without a line feed; bytes that are not UTF-8 are replaced.
std::string json_text(const nlohmann::ordered_json& value);

}  // namespace optserve::job_json

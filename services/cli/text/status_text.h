// The state of the schedulers as text for people and as JSON for programs.
#pragma once

#include <string>

#include "client/client.h"

namespace optserve::cli {

// One line: {"schedulers": [...]} with an object for each scheduler. That of a scheduler that did not answer has only
// "endpoint", "error" and "message".
std::string status_json(const client::Answers<protocol::SystemStatus>& answers);
// For each scheduler a few lines, a table of its models and a table of its services.
std::string status_table(const client::Answers<protocol::SystemStatus>& answers);

}  // namespace optserve::cli

// What is good and bad about a machine, and what to do about it.
#pragma once

#include <string>
#include <vector>

#include "cli/doctor/machine_facts.h"

namespace optserve::cli {

enum class Health { kGood, kWarning, kProblem };  // kProblem: optserve will not work here, or not durably

struct Finding {
  std::string subject;  // one word, for programs too
  Health health = Health::kGood;
  std::string found;
  std::string advice;  // what to do; empty if all is well
};

std::vector<Finding> diagnose(const MachineFacts& facts);

// The worst of them.
Health worst_health(const std::vector<Finding>& findings);

std::string findings_text(const std::vector<Finding>& findings, bool in_colours);
// One line: {"health": "good", "findings": [{"subject": ..., "health": ..., "found": ..., "advice": ...}]}.
std::string findings_json(const std::vector<Finding>& findings);

}  // namespace optserve::cli

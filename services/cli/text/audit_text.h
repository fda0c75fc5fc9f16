// What operators did, as text for people and as JSON for programs.
#pragma once

#include <string>

#include "audit/audit_log.h"

namespace optserve::cli {

// Names are those that peers chose: whatever is not plain ASCII is escaped.
std::string audit_table(const audit::Listing& listing);
// One line: {"records": [...], "unreadable": 0}, each record with the fields of its line in the log.
std::string audit_json(const audit::Listing& listing);

}  // namespace optserve::cli

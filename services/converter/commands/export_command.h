// `optserve export`.
#pragma once

#include <iosfwd>

#include "base/clock.h"
#include "conversion/command_options.h"

namespace optserve::converter {

// Exports; progress and faults go to `err`, the result to `out`. Stops on SIGINT and SIGTERM. Returns the exit status:
// 0, 1 refused or failed, 130 cancelled.
int run_export(const conversion::ExportCommand& command, const Clock& clock, std::ostream& out, std::ostream& err);

}  // namespace optserve::converter

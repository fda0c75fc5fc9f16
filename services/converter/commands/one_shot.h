// `optserve convert`, `optserve export` and `optserve inspect`: one call each, with output for a terminal.
#pragma once

#include <iosfwd>

#include "conversion/command_options.h"
#include "converter/export/export.h"
#include "converter/write/convert.h"

namespace optserve::converter {

using conversion::ConvertCommand;
using conversion::ExportCommand;
using conversion::InspectCommand;
using conversion::ReaderOptions;

// Checks the text options and fills the library's; the callers that have no terminal use this too.
Result<ConvertOptions> to_options(const ConvertCommand& command);
Result<ExportOptions> to_options(const ExportCommand& command);

Result<ReaderSettings> to_settings(const ReaderOptions& options);

// Converts; progress and faults go to `err`, the result to `out`. Stops on SIGINT or SIGTERM if base/shutdown.h's
// handlers are installed. Returns the exit status: 0, 1 refused, 2 the environment failed, 130 cancelled.
int run_convert(const ConvertCommand& command, std::ostream& out, std::ostream& err);

// The same for an export.
int run_export(const ExportCommand& command, std::ostream& out, std::ostream& err);

// Describes a checkpoint. Exit status: 0, 1 not a checkpoint or damaged, 2 the environment failed.
int run_inspect(const InspectCommand& command, std::ostream& out, std::ostream& err);

}  // namespace optserve::converter

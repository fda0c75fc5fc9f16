// `optserve convert`, with `--verify` too.
#pragma once

#include <iosfwd>

#include "base/clock.h"
#include "conversion/command_options.h"
#include "converter/write/convert.h"

namespace optserve::converter {

// The options of the conversion, with the command's words read. Refuses unknown words.
Result<ConvertOptions> options_of(const conversion::ConvertCommand& command);

// Converts, and verifies if the command says so: what was written, or what the same conversion has written before.
// Progress and faults go to `err`, results to `out`. Stops on SIGINT and SIGTERM if the handlers of base/shutdown.h are
// installed. Returns the exit status: 0, 1 refused, failed or not what the source says, 130
// cancelled.
int run_convert(const conversion::ConvertCommand& command, const Clock& clock, std::ostream& out, std::ostream& err);

}  // namespace optserve::converter

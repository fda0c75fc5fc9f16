// `optserve calibrate`.
#pragma once

#include <iosfwd>

#include "conversion/command_options.h"

namespace optserve::converter {

// Measures and writes the file whole or not at all; a file that exists is not replaced. Stops on SIGINT or SIGTERM.
// Exit status: 0, 1 refused or failed, 130 cancelled.
int run_calibrate(const conversion::CalibrateCommand& command, std::ostream& out, std::ostream& err);

}  // namespace optserve::converter

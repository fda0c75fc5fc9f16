// `optserve convert --verify`: what follows the conversion.
#pragma once

#include <iosfwd>

#include "converter/commands/one_shot.h"

namespace optserve::converter {

// Verifies what run_convert() with the same command has written or found; the table goes to `out`, faults to `err`.
// Exit status: 0, 1 refused or not what the source says, 2 the environment failed, 130 cancelled.
int run_verify(const ConvertCommand& command, std::ostream& out, std::ostream& err);

}  // namespace optserve::converter

// What the commands of the converter end with.
#pragma once

#include <functional>
#include <iosfwd>

#include "base/error.h"

namespace optserve::converter {

// Runs a command. What it refuses or throws as Error becomes a line on `err`. The exit status: the command's own, 1 if
// it refused, 2 if the environment failed, 130 if it was cancelled.
int exit_status_of(const std::function<Result<int>()>& command, std::ostream& err);

}  // namespace optserve::converter

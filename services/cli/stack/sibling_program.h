// The programs of optserve lie in one folder; each finds the others beside itself.
#pragma once

#include <string>

namespace optserve::cli {

// Path of `name` in the folder of the running program. Throws Error naming the path if it is not there.
std::string sibling_program(const std::string& name);

}  // namespace optserve::cli

// Replaces one file by another in a single step.
#pragma once

#include <cstdio>
#include <string>

#include "base/error.h"

namespace optserve {

inline void rename_file(const std::string& from, const std::string& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0) throw errno_error("rename " + from + " to " + to);
}

}  // namespace optserve

// `optserve calibrate`.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>

namespace optserve::converter {

struct CalibrateCommand {
  std::string checkpoint;
  std::string text;    // a file of UTF-8 text
  std::string output;  // file to create
  int64_t tokens = 8192;
};

// Measures and writes the file whole or not at all; a file that exists is not replaced. Stops on SIGINT or SIGTERM.
// Exit status: 0, 1 refused, 2 the environment failed, 130 cancelled.
int run_calibrate(const CalibrateCommand& command, std::ostream& out, std::ostream& err);

}  // namespace optserve::converter

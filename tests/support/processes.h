// Runs our programs to their end, for tests of the command line.
#pragma once

#include <string>
#include <vector>

namespace optserve::test_support {

struct ProgramOutput {
  int status = 0;  // exit status; 128 + n after signal n
  std::string out;
  std::string err;
};

// Runs the program `name`, which lies beside the test, with `input` on standard input.
ProgramOutput run_program(const std::string& name, const std::vector<std::string>& arguments,
                          const std::string& input = {});

}  // namespace optserve::test_support

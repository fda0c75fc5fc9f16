// What all programs share: how they report that they cannot go on, and the main function of services.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/config.h"
#include "base/error.h"

namespace optserve {

// A configuration that cannot work however often the program is started. Ends a service with kExitConfiguration, which
// tells a supervisor that a restart is of no use.
class ConfigurationError : public Error {
 public:
  using Error::Error;
};

struct ProgramFailure {
  std::string program;
  std::string code;  // a word for programs, as error_code_name() has them
  std::string message;
  int exit_status = 0;
};
// Prints to standard error as "PROGRAM: MESSAGE", or to standard output as {"error": {"code": ..., "message": ...,
// "exit_status": ...}}.
void print_failure(const ProgramFailure& failure, bool as_json);

struct ServiceFrame {
  int argc;
  const char* const* argv;
  std::string_view log_name;  // "scheduler"
  ConfigParser& parser;
  const CommonOptions& common;
};
// The main function of a service: parses the command line, starts logging and calls `body`. Returns the exit status:
// that of `body`, if it returns.
int run_service(const ServiceFrame& frame, const std::function<int()>& body);
// Runs `body` and returns its result. What it throws is logged once and becomes an exit status.
int run_reported(const std::function<int()>& body);

}  // namespace optserve

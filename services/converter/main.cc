#include <cstdio>
#include <exception>
#include <iostream>

#include "base/clock.h"
#include "base/log.h"
#include "base/shutdown.h"
#include "converter/commands/calibrate_command.h"
#include "converter/commands/command_line.h"
#include "converter/commands/convert_command.h"
#include "converter/commands/export_command.h"
#include "converter/commands/inspect_command.h"

namespace {

using namespace optserve;

int run(const converter::CommandLine& line, const Clock& clock) {
  if (line.is_convert) return converter::run_convert(line.convert, clock, std::cout, std::cerr);
  if (line.is_export) return converter::run_export(line.exported, clock, std::cout, std::cerr);
  if (line.is_calibrate) return converter::run_calibrate(line.calibrate, std::cout, std::cerr);
  if (line.is_inspect) return converter::run_inspect(line.inspect, std::cout, std::cerr);
  start_logging("converter", line.serve.common, *line.serve_parser);
  converter::serve(line.serve, clock);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  constexpr int kExitUsage = 2;
  converter::CommandLine line;
  ConfigParser parser("optserve-converter", "Turns OPT checkpoints of other systems into sharded ones, and back.");
  converter::add_options(parser, line);
  if (const int status = parser.parse(argc, argv); status >= 0) return status == 0 ? 0 : kExitUsage;
  try {
    install_shutdown_signals();
    return run(line, SystemClock());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "optserve-converter: %s\n", error.what());
    if (line.is_serve) log_error("stopped", {{"cause", error.what()}});
    return 1;
  }
}

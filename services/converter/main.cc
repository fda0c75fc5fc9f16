#include <cstdio>
#include <exception>
#include <iostream>

#include "base/clock.h"
#include "base/exit_status.h"
#include "base/first_process.h"
#include "base/log.h"
#include "base/program.h"
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
  return converter::run_inspect(line.inspect, std::cout, std::cerr);
}

}  // namespace

int main(int argc, char** argv) {
  converter::CommandLine line;
  ConfigParser parser("optserve-converter", "Turns OPT checkpoints of other systems into sharded ones, and back.");
  converter::add_options(parser, line);
  if (const int status = parser.parse(argc, argv); status >= 0) return status;
  if (line.is_serve) {
    return run_reported([&] {
      leave_first_process();
      install_service_signals();
      start_logging("converter", line.serve.common, *line.serve_parser);
      converter::serve(line.serve, SystemClock());
      return kExitOk;
    });
  }
  try {
    install_shutdown_signals();
    end_at_second_signal(kExitInterrupted);  // a conversion that was killed goes on from its finished shards
    return run(line, SystemClock());
  } catch (const std::exception& error) {
    print_failure({"optserve", "internal", error.what(), kExitFailed}, false);
    return kExitFailed;
  }
}

#include <cstdio>
#include <exception>
#include <iostream>

#include "base/log.h"
#include "base/shutdown.h"
#include "converter/commands/options.h"
#include "converter/commands/verify_command.h"
#include "converter/service/serve.h"

int main(int argc, char** argv) {
  using namespace optserve;
  constexpr int kExitUsage = 2;
  converter::ConverterOptions options;
  ConfigParser parser("optserve-converter", "Turns OPT checkpoints of other systems into sharded ones, and back.");
  converter::add_options(parser, options);
  if (const int status = parser.parse(argc, argv); status >= 0) return status == 0 ? 0 : kExitUsage;
  try {
    install_shutdown_signals();
    if (options.is_convert) {
      const int status = converter::run_convert(options.convert, std::cout, std::cerr);
      if (status != 0 || !options.convert.verify) return status;
      return converter::run_verify(options.convert, std::cout, std::cerr);
    }
    if (options.is_export) return converter::run_export(options.exported, std::cout, std::cerr);
    if (options.is_calibrate) return converter::run_calibrate(options.calibrate, std::cout, std::cerr);
    if (options.is_inspect) return converter::run_inspect(options.inspect, std::cout, std::cerr);
    start_logging("converter", options.serve.common, *options.serve_parser);
    converter::serve(options.serve);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "optserve-converter: %s\n", error.what());
    if (options.is_serve) log_error("stopped", {{"cause", error.what()}});
    return 1;
  }
}

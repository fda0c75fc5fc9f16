// The command line of optserve-converter.
#pragma once

#include "base/config.h"
#include "conversion/command_options.h"
#include "converter/service/serve.h"

namespace optserve::converter {

// One of the five commands is selected after parsing.
struct CommandLine {
  bool is_serve = false, is_convert = false, is_export = false, is_inspect = false, is_calibrate = false;
  ServeOptions serve;
  conversion::ConvertCommand convert;
  conversion::ExportCommand exported;
  conversion::InspectCommand inspect;
  conversion::CalibrateCommand calibrate;
  ConfigParser* serve_parser = nullptr;  // of the effective values for the log; owned by the parser
};

void add_options(ConfigParser& parser, CommandLine& line);

}  // namespace optserve::converter

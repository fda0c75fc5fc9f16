// The command line of optserve-converter.
#pragma once

#include <string>
#include <vector>

#include "base/config.h"
#include "converter/commands/calibrate_command.h"
#include "converter/commands/one_shot.h"

namespace optserve::converter {

struct ServeOptions {
  CommonOptions common;
  std::vector<std::string> schedulers = {"tcp://127.0.0.1:5556"};
  std::vector<std::string> roots;  // folders that jobs may read and write
  int64_t drain_seconds = 60;      // after SIGTERM, for the running conversion
  int64_t pass_mib_max = 0;        // see shards_per_pass()
  ReaderOptions reader;
};

// One of the five commands is selected after parsing.
struct ConverterOptions {
  bool is_serve = false, is_convert = false, is_export = false, is_inspect = false, is_calibrate = false;
  ServeOptions serve;
  ConvertCommand convert;
  ExportCommand exported;
  InspectCommand inspect;
  CalibrateCommand calibrate;
  ConfigParser* serve_parser = nullptr;  // of the effective values for the log; owned by the parser
};

void add_options(ConfigParser& parser, ConverterOptions& options);

}  // namespace optserve::converter

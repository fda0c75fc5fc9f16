// The options of `optserve convert`, `export`, `inspect` and `calibrate`. `optserve` declares them for its help and
// reads them from flags, environment and configuration file; `optserve-converter`, which does the work, declares the
// same ones.
#pragma once

#include <cstdint>
#include <string>

#include "base/config.h"

namespace optserve::conversion {

// How foreign files are read.
struct ReaderOptions {
  std::string sandbox = "try";   // require, try or off
  int64_t reader_seconds = 600;  // a reader that says nothing for longer is ended
};

struct ConvertCommand {
  std::string input;   // folder, file or glob
  std::string output;  // folder to create
  std::string name;
  std::string dtype = "keep";     // keep, fp32, fp16 or bf16
  std::string quantize = "none";  // none, int8, int8-mse, fp8 or int4
  std::string smooth;             // file of ranges, as calibrate writes it
  double smooth_alpha = 0.5;
  int shards = 0;         // 0: chosen
  int64_t num_heads = 0;  // 0: as the files say, or as the published model of this size has
  std::string vocab_file;
  std::string merges_file;
  bool allow_nonfinite = false;
  bool check_source = true;
  bool restart = false;
  int64_t pass_mib_max = 0;  // 0: chosen
  bool verify = false;       // the output may exist already
  bool show_progress = true;
  ReaderOptions reader;
};

struct ExportCommand {
  std::string input;                   // folder of a converted checkpoint
  std::string output;                  // folder to create
  std::string format = "huggingface";  // or metaseq
  int parts = 1;
  int64_t file_mb_max = 5000;
  bool check_source = true;
  bool show_progress = true;
};

struct InspectCommand {
  std::string path;  // folder, file or glob
  bool as_json = false;
  bool with_tensors = false;
  ReaderOptions reader;
};

struct CalibrateCommand {
  std::string checkpoint;  // folder of a converted checkpoint
  std::string text;        // file of UTF-8 text
  std::string output;      // file to create
  int64_t tokens = 8192;
};

// Each adds a subcommand with its options to `parser` and returns the subcommand's parser. `selected` says after
// parsing whether the subcommand was given.
ConfigParser& add_command(ConfigParser& parser, ConvertCommand& command, bool& selected);
ConfigParser& add_command(ConfigParser& parser, ExportCommand& command, bool& selected);
ConfigParser& add_command(ConfigParser& parser, InspectCommand& command, bool& selected);
ConfigParser& add_command(ConfigParser& parser, CalibrateCommand& command, bool& selected);

// Options that a converter service has too.
void add_options(ConfigParser& parser, ReaderOptions& options);
void add_pass_option(ConfigParser& parser, int64_t& pass_mib_max);

}  // namespace optserve::conversion

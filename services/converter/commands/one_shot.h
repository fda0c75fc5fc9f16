// `optserve convert`, `optserve export` and `optserve inspect`: one call each, with output for a terminal.
#pragma once

#include <iosfwd>
#include <string>

#include "converter/export/export.h"
#include "converter/write/convert.h"

namespace optserve::converter {

// How foreign files are read, as the command line has it.
struct ReaderOptions {
  std::string sandbox = "try";   // require, try, off
  int64_t reader_seconds = 600;  // a reader that is silent for longer is ended
};

struct ConvertCommand {
  std::string input;
  std::string output;
  std::string name;
  std::string dtype = "keep";     // keep, fp32, fp16, bf16
  std::string quantize = "none";  // none, int8, int8-mse, fp8, int4
  std::string smooth;             // file of ranges
  double smooth_alpha = 0.5;
  int shards = 0;
  int64_t num_heads = 0;
  std::string vocab_file;
  std::string merges_file;
  bool allow_nonfinite = false;
  bool check_source = true;
  bool restart = false;
  int64_t pass_mib_max = 0;
  bool verify = false;  // the output may exist already
  bool show_progress = true;
  ReaderOptions reader;
};

struct ExportCommand {
  std::string input;
  std::string output;
  std::string format = "huggingface";  // or metaseq
  int parts = 1;
  int64_t file_mb_max = 5000;
  bool check_source = true;
  bool show_progress = true;
};

// Checks the text options and fills the library's; the callers that have no terminal use this too.
Result<ConvertOptions> to_options(const ConvertCommand& command);
Result<ExportOptions> to_options(const ExportCommand& command);

Result<ReaderSettings> to_settings(const ReaderOptions& options);

// Converts; progress and faults go to `err`, the result to `out`. Stops on SIGINT or SIGTERM if base/shutdown.h's
// handlers are installed. Returns the exit status: 0, 1 refused, 2 the environment failed, 130 cancelled.
int run_convert(const ConvertCommand& command, std::ostream& out, std::ostream& err);

// The same for an export.
int run_export(const ExportCommand& command, std::ostream& out, std::ostream& err);

struct InspectCommand {
  std::string path;
  bool as_json = false;
  bool with_tensors = false;
  ReaderOptions reader;
};

// Describes a checkpoint. Exit status: 0, 1 not a checkpoint or damaged, 2 the environment failed.
int run_inspect(const InspectCommand& command, std::ostream& out, std::ostream& err);

}  // namespace optserve::converter

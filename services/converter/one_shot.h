// `optserve convert`, `optserve export` and `optserve inspect`: one call each, with output for a terminal.
#pragma once

#include <iosfwd>
#include <string>

#include "converter/convert.h"
#include "converter/export.h"

namespace optserve::converter {

struct ConvertCommand {
  std::string input;
  std::string output;
  std::string name;
  std::string dtype = "keep";     // keep, fp32, fp16, bf16
  std::string quantize = "none";  // none, int8, int8-mse, fp8, int4
  int shards = 0;
  int64_t num_heads = 0;
  std::string vocab_file;
  std::string merges_file;
  bool allow_nonfinite = false;
  bool check_source = true;
  bool show_progress = true;
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

// Converts; progress and faults go to `err`, the result to `out`. Stops on SIGINT or SIGTERM if base/shutdown.h's
// handlers are installed. Returns the exit status: 0, 1 refused, 2 the environment failed, 130 cancelled.
int run_convert(const ConvertCommand& command, std::ostream& out, std::ostream& err);

// The same for an export.
int run_export(const ExportCommand& command, std::ostream& out, std::ostream& err);

// Describes a checkpoint. Exit status: 0, 1 not a checkpoint or damaged.
int run_inspect(const std::string& path, bool as_json, bool with_tensors, std::ostream& out, std::ostream& err);

}  // namespace optserve::converter

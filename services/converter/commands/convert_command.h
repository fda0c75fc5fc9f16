// `optserve convert`, with `--verify` too.
#pragma once

#include <iosfwd>
#include <string>

#include "base/clock.h"
#include "converter/commands/reader_words.h"
#include "converter/write/convert.h"

namespace optserve::converter {

// The options of a conversion, and the words among them that options_of() has to read. Jobs fill in the same words.
struct ConvertCommand {
  ConvertOptions options;         // but for what the words say
  std::string dtype = "keep";     // keep, fp32, fp16, bf16
  std::string quantize = "none";  // none, int8, int8-mse, fp8, int4
  ReaderWords reader;
  bool verify = false;  // the output may exist already
  bool show_progress = true;
};

// The options of the conversion, complete. Refuses unknown words.
Result<ConvertOptions> options_of(const ConvertCommand& command);

// Converts, and verifies if the command says so: what was written, or what the same conversion has written before.
// Progress and faults go to `err`, results to `out`. Stops on SIGINT and SIGTERM if the handlers of base/shutdown.h are
// installed. Returns the exit status: 0, 1 refused or not what the source says, 2 the environment failed, 130
// cancelled.
int run_convert(const ConvertCommand& command, const Clock& clock, std::ostream& out, std::ostream& err);

}  // namespace optserve::converter

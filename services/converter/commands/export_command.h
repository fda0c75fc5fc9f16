// `optserve export`.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>

#include "base/clock.h"
#include "converter/export/export.h"

namespace optserve::converter {

struct ExportCommand {
  ExportOptions options;               // but for what the next two say
  std::string format = "huggingface";  // or metaseq
  int64_t file_mb_max = 5000;
  bool show_progress = true;
};

// Exports; progress and faults go to `err`, the result to `out`. Stops on SIGINT and SIGTERM. Returns the exit status:
// 0, 1 refused, 2 the environment failed, 130 cancelled.
int run_export(const ExportCommand& command, const Clock& clock, std::ostream& out, std::ostream& err);

}  // namespace optserve::converter

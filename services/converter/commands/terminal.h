// What the commands of the converter have in common: progress on standard error, and their exit status.
#pragma once

#include <functional>
#include <iosfwd>

#include "base/clock.h"
#include "base/error.h"
#include "base/progress_line.h"
#include "converter/write/convert.h"

namespace optserve::converter {

// Shows the progress of a conversion or an export.
class TerminalProgress {
 public:
  // Both outlive the object. Shows nothing unless `is_shown`.
  TerminalProgress(std::ostream& err, const Clock& clock, bool is_shown);
  // False once the process has been asked to end, which cancels the work.
  bool operator()(const ConvertProgress& progress);

 private:
  std::ostream& err_;
  const Clock& clock_;
  bool is_shown_;
  ProgressLine line_;
};

// Runs a command. A refusal, or an Error that it throws, becomes a line on `err`. The exit status: the command's own,
// kExitFailed, or kExitInterrupted if it was cancelled.
int exit_status_of(const std::function<Result<int>()>& command, std::ostream& err);

}  // namespace optserve::converter

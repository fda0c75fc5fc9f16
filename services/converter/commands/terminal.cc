#include "converter/commands/terminal.h"

#include <unistd.h>

#include <ostream>

#include "base/exit_status.h"
#include "base/shutdown.h"

namespace optserve::converter {

TerminalProgress::TerminalProgress(std::ostream& err, const Clock& clock, bool is_shown)
    : err_(err), clock_(clock), is_shown_(is_shown), line_(isatty(STDERR_FILENO) == 1) {}

bool TerminalProgress::operator()(const ConvertProgress& progress) {
  if (is_shown_) {
    const bool is_last = progress.tensor.empty();
    err_ << (is_last ? line_.finish(progress.bytes_done, progress.bytes_total, clock_.now())
                     : line_.show(progress.bytes_done, progress.bytes_total, progress.tensor, clock_.now()))
         << std::flush;
  }
  return !shutdown_requested();
}

int exit_status_of(const std::function<Result<int>()>& command, std::ostream& err) {
  try {
    const Result<int> status = command();
    if (status.ok()) return status.value();
    err << "optserve: " << status.refusal().message << "\n";
    return status.refusal().code == ErrorCode::kCancelled ? kExitInterrupted : kExitFailed;
  } catch (const Error& error) {
    err << "optserve: " << error.what() << "\n";
    return kExitFailed;
  }
}

}  // namespace optserve::converter

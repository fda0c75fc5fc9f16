#include "converter/commands/progress_line.h"

#include <unistd.h>

#include <algorithm>
#include <ostream>
#include <string>

namespace optserve::converter {
namespace {

constexpr uint64_t kMiB = 1 << 20;

}  // namespace

ProgressLine::ProgressLine(std::ostream& err, const Clock& clock, bool show)
    : err_(err),
      clock_(clock),
      show_(show),
      is_terminal_(isatty(STDERR_FILENO) == 1),
      start_(clock.now()),
      last_(start_) {}

void ProgressLine::show(const ConvertProgress& progress) {
  const Instant now = clock_.now();
  const bool is_last = progress.tensor.empty();
  const std::string left = time_left_.text(progress.bytes_done, progress.bytes_total, now);
  if (!first_bytes_) first_bytes_ = progress.bytes_done;
  const milliseconds pause(is_terminal_ ? 200 : 5000);
  if (!show_ || (is_last ? !is_terminal_ : now - last_ < pause)) return;
  last_ = now;
  const double elapsed_s = std::chrono::duration<double>(now - start_).count();
  const uint64_t done = progress.bytes_done - std::min(progress.bytes_done, *first_bytes_);
  const double rate = elapsed_s > 0 ? static_cast<double>(done / kMiB) / elapsed_s : 0;
  const uint64_t percent = progress.bytes_total == 0 ? 100 : progress.bytes_done * 100 / progress.bytes_total;
  err_ << (is_terminal_ ? "\r\x1b[K" : "") << percent << "% of " << progress.bytes_total / kMiB << " MiB, "
       << static_cast<uint64_t>(rate) << " MiB/s, " << (left.empty() ? "" : left + ", ") << progress.tensor
       << (is_terminal_ && !is_last ? "" : "\n") << std::flush;
}

}  // namespace optserve::converter

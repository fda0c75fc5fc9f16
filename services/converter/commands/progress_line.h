// The progress of a conversion or an export on a terminal: one line that is written over. Elsewhere a line every five
// seconds.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <optional>

#include "base/clock.h"
#include "base/time_left.h"
#include "converter/write/convert.h"

namespace optserve::converter {

class ProgressLine {
 public:
  // Both outlive the object. Nothing is shown unless `show`.
  ProgressLine(std::ostream& err, const Clock& clock, bool show);
  void show(const ConvertProgress& progress);

 private:
  std::ostream& err_;
  const Clock& clock_;
  bool show_;
  bool is_terminal_;
  Instant start_;
  Instant last_;
  std::optional<uint64_t> first_bytes_;  // were done before
  TimeLeft time_left_;
};

}  // namespace optserve::converter

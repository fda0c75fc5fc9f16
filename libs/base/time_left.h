// How long something will still take, for people: "about 3 min left".
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/clock.h"

namespace optserve {

// Estimates by the mean speed since the first call, so that work done before does not count.
class TimeLeft {
 public:
  // Empty while too little has been done to say.
  std::string text(uint64_t done, uint64_t total, Instant now);

 private:
  std::optional<Instant> begin_;
  uint64_t done_at_begin_ = 0;
};

}  // namespace optserve

// A clock that outlives processes, in milliseconds. What is kept on disk for a time is kept by it, so that nothing is
// lost early: it counts the time in which the machine runs, and neither a step of the wall clock nor a suspend moves
// it. It also counts while no process runs. Only a time of which the machine cannot tell how long it was does not
// count: while it was off, while the file was moved to another machine, and between a backup and its restore.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "base/clock.h"

namespace optserve {

// Names the time between two starts of the machine: Instants of the same boot can be compared, others cannot. "": the
// system does not tell, and nothing can be compared.
std::string boot_id();

class LastingTime {
 public:
  // What is stored, again and again.
  struct backend::Mark {
    int64_t time_ms = 0;
    std::string boot;       // boot_id()
    int64_t uptime_ms = 0;  // the Instant, as the time since the machine started
  };

  // Goes on from `last` at the moment `now` of this boot.
  LastingTime(const backend::Mark& last, std::string boot, Instant now)
      : boot_(std::move(boot)), ahead_ms_(last.time_ms - uptime_ms(now)) {
    const int64_t passed = uptime_ms(now) - last.uptime_ms;
    if (!boot_.empty() && boot_ == last.boot && passed > 0) ahead_ms_ += passed;
  }

  int64_t ms(Instant now) const { return ahead_ms_ + uptime_ms(now); }
  backend::Mark mark(Instant now) const { return {ms(now), boot_, uptime_ms(now)}; }

 private:
  static int64_t uptime_ms(Instant now) { return std::chrono::floor<milliseconds>(now.time_since_epoch()).count(); }

  std::string boot_;
  int64_t ahead_ms_;  // of the time since the machine started
};

}  // namespace optserve

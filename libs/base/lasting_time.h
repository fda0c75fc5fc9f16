// A clock that outlives processes, in milliseconds. It decides when what is kept on disk for a limited time expires,
// and never too early: it counts the time in which the machine runs, also while no process does, and neither a step of
// the wall clock nor a suspend moves it. Only time whose length the machine cannot know is not counted: while it was
// off, while the file was moved to another machine, and between a backup and its restore.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "base/clock.h"

namespace optserve {

// Names the time between two starts of the machine: Instants of the same boot can be compared, others cannot. "" if the
// system does not say; then nothing can be compared.
std::string boot_id();

class LastingTime {
 public:
  // What is stored at regular intervals.
  struct Mark {
    int64_t time_ms = 0;
    std::string boot;       // boot_id()
    int64_t uptime_ms = 0;  // the Instant, as the time since the machine started
  };

  // Continues from `last` at the moment `now` of this boot.
  LastingTime(const Mark& last, std::string boot, Instant now)
      : boot_(std::move(boot)), ahead_ms_(last.time_ms - uptime_ms(now)) {
    const int64_t passed = uptime_ms(now) - last.uptime_ms;
    if (!boot_.empty() && boot_ == last.boot && passed > 0) ahead_ms_ += passed;
  }

  int64_t ms(Instant now) const { return ahead_ms_ + uptime_ms(now); }
  Mark mark(Instant now) const { return {ms(now), boot_, uptime_ms(now)}; }

 private:
  static int64_t uptime_ms(Instant now) { return std::chrono::floor<milliseconds>(now.time_since_epoch()).count(); }

  std::string boot_;
  int64_t ahead_ms_;  // of the time since the machine started
};

}  // namespace optserve

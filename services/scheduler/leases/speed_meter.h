// How many tokens a worker processes in a second while it has as much work as it can take, exponentially averaged over
// such time. A worker with room to spare is not measured: it would be as fast as its few jobs allow, and look slow.
#pragma once

#include <algorithm>
#include <cmath>

#include "base/clock.h"

namespace optserve::scheduler {

class SpeedMeter {
 public:
  // Of measurement, before it is believed: the pause of a process or a network would look like a slow worker in the
  // time alone, while what was done meanwhile arrives in the records after it.
  static constexpr int kRecordsMin = 32;

  // `tokens` were processed since the last record; `saturated`: the worker has all the work that it can take.
  void record(double tokens, Instant now, bool saturated) {
    if (measuring_ && saturated) {
      const double passed = std::chrono::duration<double>(now - last_).count();
      const double kept = std::exp(-passed / kMemorySeconds);
      tokens_ = tokens_ * kept + tokens;
      seconds_ = seconds_ * kept + passed;
      records_ = std::min(records_ + 1, kRecordsMin);
    }
    measuring_ = saturated;
    last_ = now;
  }
  // The worker has nothing to do.
  void pause() { measuring_ = false; }
  // 0: not known yet.
  double tokens_per_second() const { return seconds_ < kSecondsMin || records_ < kRecordsMin ? 0 : tokens_ / seconds_; }

 private:
  static constexpr double kMemorySeconds = 10;
  static constexpr double kSecondsMin = 0.5;  // also before it is believed
  double tokens_ = 0;
  double seconds_ = 0;
  int records_ = 0;
  bool measuring_ = false;
  Instant last_{};
};

}  // namespace optserve::scheduler

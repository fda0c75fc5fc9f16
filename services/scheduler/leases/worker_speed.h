// How fast a worker is: in tokens, to know how long its queue takes, and in steps, to know when it is stuck.
#pragma once

#include <algorithm>
#include <cmath>

#include "base/clock.h"

namespace optserve::scheduler {

// How many tokens a worker processes in a second while it has as much work as it can take, exponentially averaged over
// such time. A worker with room to spare is not measured: it is only as fast as its few jobs allow, and would look
// slow.
class SpeedMeter {
 public:
  // How long a worker is measured before the figure is used: after a pause of a process or of the network, the first
  // record shows only the time that has passed, as if the worker were slow; what it did meanwhile arrives in the
  // records after that.
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

// How long a worker with jobs may show no progress before it counts as stuck: it follows the steps that were seen, so
// that the hang of a fast worker is found within seconds and a slow worker gets the time that it needs.
class StepPace {
 public:
  struct Bounds {
    Duration first = seconds(120);  // to the first step after registration: weights may still be on their way
    Duration min = seconds(10);
    Duration max = seconds(60);
  };

  // The worker made progress, `interval` after its last progress or after it got work.
  void step(Duration interval, Instant now) {
    if (!stepped_ || now - window_ >= kWindow) {
      before_ = slowest_;
      slowest_ = Duration::zero();
      window_ = now;
    }
    slowest_ = std::max(slowest_, interval);
    stepped_ = true;
  }
  Duration limit(const Bounds& bounds) const {
    if (!stepped_) return bounds.first;
    return std::clamp(kFactor * std::max(slowest_, before_), bounds.min, std::max(bounds.min, bounds.max));
  }

 private:
  static constexpr int kFactor = 10;
  static constexpr Duration kWindow = seconds(300);  // a slow step is remembered for one to two windows
  bool stepped_ = false;
  Instant window_{};
  Duration slowest_{}, before_{};
};

}  // namespace optserve::scheduler

// How long a worker with jobs may show no progress before it counts as stuck: it follows the steps that were seen, so
// that a fast worker's hang is found in seconds and a slow one is left its time.
#pragma once

#include <algorithm>

#include "base/clock.h"

namespace optserve::scheduler {

class StepPace {
 public:
  struct Bounds {
    Duration first = seconds(120);  // to the first step after registration: weights may still be on their way
    Duration min = seconds(10);
    Duration max = seconds(60);
  };

  // The worker moved, `interval` after it moved before or got work.
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
  static constexpr Duration kWindow = seconds(300);  // a slow step is remembered for one to two of these
  bool stepped_ = false;
  Instant window_{};
  Duration slowest_{}, before_{};
};

}  // namespace optserve::scheduler

#include "metrics/health.h"

#include <chrono>

namespace optserve::metrics {

int64_t Health::now_ms() const {
  return std::chrono::duration_cast<milliseconds>(clock.now().time_since_epoch()).count();
}

void Health::stamp() { alive_at_ms.store(now_ms(), std::memory_order_relaxed); }

void Health::set_problem(const std::string& problem) {
  const std::lock_guard lock(mutex_);
  problem_ = problem;
}

std::string Health::problem() const {
  const std::lock_guard lock(mutex_);
  return problem_;
}

}  // namespace optserve::metrics

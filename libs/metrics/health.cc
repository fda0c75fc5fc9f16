#include "metrics/health.h"

#include <algorithm>
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

std::string Health::load_progress() const {
  const int64_t total = bytes_to_load.load(), done = std::min(loaded_bytes.load(), total);
  if (total <= 0) return {};
  const auto percent = static_cast<int>(100.0 * static_cast<double>(done) / static_cast<double>(total));
  return "loaded " + std::to_string(done) + " of " + std::to_string(total) + " bytes (" + std::to_string(percent) +
         "%)";
}

}  // namespace optserve::metrics

#include "base/time_left.h"

#include <cmath>

namespace optserve {

std::string TimeLeft::text(uint64_t done, uint64_t total, Instant now) {
  if (!begin_ || done < done_at_begin_) {
    begin_ = now;
    done_at_begin_ = done;
  }
  constexpr seconds kSpeedKnownAfter{2};
  if (now - *begin_ < kSpeedKnownAfter || done <= done_at_begin_ || done >= total) return "";
  const double elapsed = std::chrono::duration<double>(now - *begin_).count();
  const double left = elapsed * static_cast<double>(total - done) / static_cast<double>(done - done_at_begin_);
  constexpr double kMinute = 60, kHour = 3600;
  const auto about = [](double number, const char* unit) {
    return "about " + std::to_string(std::lround(std::ceil(number))) + unit + " left";
  };
  if (left < 1.5 * kMinute) return about(left, " s");
  if (left < 1.5 * kHour) return about(left / kMinute, " min");
  return about(left / kHour, " h");
}

}  // namespace optserve

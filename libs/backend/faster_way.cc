#include "backend/faster_way.h"

#include <algorithm>

namespace optserve::backend {

namespace {

constexpr double kWorthwhile = 0.99;

double median(std::array<double, FasterWay::kTimes>& times) {
  auto* const middle = times.begin() + FasterWay::kTimes / 2;
  std::nth_element(times.begin(), middle, times.end());
  return *middle;
}

}  // namespace

FasterWay::Run FasterWay::next() {
  if (left_ == 0) return {timed_ % 2 == 1, true};
  --left_;
  return {is_second_faster_, false};
}

void FasterWay::took(double ms) {
  times_[static_cast<size_t>(timed_ % 2)][static_cast<size_t>(timed_ / 2)] = ms;
  if (++timed_ < 2 * kTimes) return;
  is_second_faster_ = median(times_[1]) < kWorthwhile * median(times_[0]);
  timed_ = 0;
  left_ = kRunsBetween;
}

}  // namespace optserve::backend

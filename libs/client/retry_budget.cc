#include "client/retry_budget.h"

#include <algorithm>
#include <chrono>

namespace optserve::client {

void RetryBudget::refill(Instant now, double tokens) {
  if (now > last_) {
    if (last_ != Instant{}) tokens += options_.per_second * std::chrono::duration<double>(now - last_).count();
    last_ = now;
  }
  tokens_ = std::min(options_.burst, tokens_ + tokens);
}

void RetryBudget::add_request(Instant now) { refill(now, options_.share); }

bool RetryBudget::take(Instant now) {
  refill(now, 0);
  if (tokens_ < 1) return false;
  tokens_ -= 1;
  return true;
}

}  // namespace optserve::client

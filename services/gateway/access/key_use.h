// How much a key has used of what it may: a bucket of requests, and the open jobs.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>

#include "base/clock.h"

namespace optserve::gateway {

// A bucket that a minute's requests fit into; it begins full and refills evenly.
class RequestBucket {
 public:
  // Takes one request of `per_minute` (at least 1). Returns 0, or how many milliseconds later there is one.
  int64_t take(int64_t per_minute, Instant now) {
    const auto size = static_cast<double>(per_minute);
    const double minutes = is_begun_ ? std::chrono::duration<double>(now - filled_).count() / 60 : 1;
    requests_ = std::min(size, requests_ + std::max(minutes, 0.0) * size);
    is_begun_ = true;
    filled_ = now;
    constexpr double kRounding = 1e-6;
    if (requests_ >= 1 - kRounding) {
      requests_ -= 1;
      return 0;
    }
    return static_cast<int64_t>((1 - requests_) / size * 60'000) + 1;
  }

 private:
  double requests_ = 0;
  Instant filled_{};
  bool is_begun_ = false;
};

struct KeyUse {
  RequestBucket requests;             // of the HTTP server's thread
  std::atomic<int64_t> open_jobs{0};  // jobs end on the client's thread too
};

// Jobs that count as open while this lives, on any thread. Without a key nothing is counted.
class OpenJobs {
 public:
  OpenJobs() = default;
  OpenJobs(std::shared_ptr<KeyUse> use, int64_t count) : use_(std::move(use)), count_(count) {
    if (use_) use_->open_jobs += count;
  }
  ~OpenJobs() {
    if (use_) use_->open_jobs -= count_.load();
  }
  OpenJobs(const OpenJobs&) = delete;
  OpenJobs& operator=(const OpenJobs&) = delete;

  bool is_counted() const { return use_ != nullptr; }
  // One of the jobs has ended.
  void end_one() {
    int64_t count = count_;
    while (count > 0 && !count_.compare_exchange_weak(count, count - 1)) {
    }
    if (count > 0) --use_->open_jobs;
  }

 private:
  std::shared_ptr<KeyUse> use_;
  std::atomic<int64_t> count_{0};
};

}  // namespace optserve::gateway

// Time is a parameter: pure code receives an Instant, and only Clock implementations ask the system for it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace optserve {

using Instant = std::chrono::steady_clock::time_point;  // monotonic; for timeouts and durations
using Duration = std::chrono::steady_clock::duration;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Instant now() const = 0;
  virtual int64_t wall_ms() const = 0;  // milliseconds since 1970, for people and for the journal only
};

class SystemClock final : public Clock {
 public:
  Instant now() const override { return std::chrono::steady_clock::now(); }
  int64_t wall_ms() const override {
    return std::chrono::duration_cast<milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  }
};

// A clock that tests advance by hand, even while other threads read it.
class FakeClock final : public Clock {
 public:
  Instant now() const override { return Instant(Duration(since_epoch_.load())); }
  int64_t wall_ms() const override {
    return std::chrono::duration_cast<milliseconds>(now().time_since_epoch()).count();
  }
  void advance(Duration by) { since_epoch_ += by.count(); }

 private:
  std::atomic<Duration::rep> since_epoch_{Duration(seconds(1'000'000)).count()};
};

}  // namespace optserve

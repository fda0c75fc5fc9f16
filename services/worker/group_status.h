// One page of shared memory between the supervisor and its ranks: who has loaded, and since when each rank is inside a
// step. It lets the supervisor see a hung rank from outside, whatever that rank's threads are doing.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "base/clock.h"
#include "base/limits.h"

namespace optserve::worker {

struct GroupStatus {
  std::atomic<int32_t> loaded[limits::kWorldSizeMax];        // 1: this rank's weights are in place
  std::atomic<int64_t> loaded_bytes[limits::kWorldSizeMax];  // these two: of this rank's weights
  std::atomic<int64_t> bytes_to_load[limits::kWorldSizeMax];
  std::atomic<int64_t> busy_since_ms[limits::kWorldSizeMax];  // monotonic; 0: not inside a step
  std::atomic<int64_t> alive_at_ms;                           // monotonic; rank 0's message loop, once it runs
  std::atomic<int32_t> ready;                                 // 1: rank 0 is registered with a scheduler
};
static_assert(std::atomic<int64_t>::is_always_lock_free && std::atomic<uint64_t>::is_always_lock_free);

// The mapping of a GroupStatus. Zero-filled when created.
class GroupStatusMemory {
 public:
  static GroupStatusMemory create();        // throws Error
  static GroupStatusMemory attach(int fd);  // throws Error
  ~GroupStatusMemory();
  GroupStatusMemory(GroupStatusMemory&& other) noexcept;
  GroupStatusMemory& operator=(GroupStatusMemory&&) = delete;

  GroupStatus& operator*() const { return *status_; }
  GroupStatus* operator->() const { return status_; }
  int fd() const { return fd_; }

 private:
  GroupStatusMemory(GroupStatus* status, int fd) : status_(status), fd_(fd) {}
  GroupStatus* status_ = nullptr;
  int fd_ = -1;
};

// The time of `clock` in milliseconds, which is the unit of GroupStatus.
int64_t monotonic_ms(const Clock& clock);

// Shows the supervisor since when the oldest unfinished step has been running. Used by one thread.
class StepMark {
 public:
  StepMark(GroupStatus& status, int rank, const Clock& clock) : mark_(status.busy_since_ms[rank]), clock_(clock) {}
  void started() {
    if (steps_++ == 0) mark_.store(monotonic_ms(clock_));
  }
  // The next step runs only since this one has finished.
  void finished() { mark_.store(--steps_ > 0 ? monotonic_ms(clock_) : 0); }

 private:
  std::atomic<int64_t>& mark_;
  const Clock& clock_;
  int steps_ = 0;
};

}  // namespace optserve::worker

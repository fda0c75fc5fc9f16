// The page of memory by which the harness tells a process under test how its disk and its wall clock behave.
#pragma once

#include <atomic>
#include <cstdint>

namespace optserve::chaos {

struct ShimControl {
  std::atomic<int64_t> sync_delay_us;    // added to every fsync and fdatasync
  std::atomic<int64_t> clock_offset_ms;  // added to the wall clock
};
static_assert(std::atomic<int64_t>::is_always_lock_free);

}  // namespace optserve::chaos

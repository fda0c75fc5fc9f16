// Memory that one GPU writes and another waits for. The data are their own flag: a 32-bit word that has not arrived is
// kEmpty, and a writer replaces that one pattern, which only NaNs have, by another NaN. Words are checked one by one,
// so that nothing depends on the order in which they arrive. The reader makes a word kEmpty again as soon as it has
// read it. Two buffers in turn are enough: a peer writes to this buffer again two collectives later. It gets there only
// after it has received this rank's part of the collective in between, which this rank stores only when the current
// collective has ended.
#pragma once

#include "kernels/dependent_launch.cuh"
#include "kernels/peer_reduce.h"

namespace optserve::kernels {

inline constexpr uint32_t kEmpty = 0xffffffffu;
inline constexpr uint32_t kLooksBetweenChecks = 1024;  // about 0.6 ms

__device__ __forceinline__ uint32_t not_empty(uint32_t word) { return word == kEmpty ? 0x7fffffffu : word; }

// The value in the form in which it is stored. The owner of a part uses this form too, so that all ranks add the same
// numbers.
__device__ __forceinline__ uint4 sealed(const uint4& v) {
  return {not_empty(v.x), not_empty(v.y), not_empty(v.z), not_empty(v.w)};
}

__device__ __forceinline__ bool has_come(const uint4& v) {
  return v.x != kEmpty && v.y != kEmpty && v.z != kEmpty && v.w != kEmpty;
}

__device__ __forceinline__ void store_words(void* to, const uint4& v) {
  asm volatile("st.relaxed.sys.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(v.x),
               "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
}

__device__ __forceinline__ uint4 look(const void* from) {
  uint4 v;
  asm volatile("ld.relaxed.sys.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(__cvta_generic_to_global(from))
               : "memory");
  return v;
}

__device__ __forceinline__ uint32_t look_word(const uint32_t* from) {
  return *static_cast<const volatile uint32_t*>(from);
}

// Decides how long a thread goes on looking.
class Patience {
 public:
  __device__ __forceinline__ bool goes_on(const PeerGroup& group) {
    if (++looks_ % kLooksBetweenChecks != 0) return true;
    since_ = check(group, since_);
    return since_ != 0;
  }

 private:
  // Returns when the thread began to look, as far as this is known, or 0 if it must give up.
  static __device__ __noinline__ uint64_t check(const PeerGroup& group, uint64_t since) {
    if (look_word(&group.state->gave_up) != 0) return 0;
    uint64_t now = 0;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    if (since == 0) since = now;
    const bool stopped = look_word(&group.control->stop) != 0;
    if (!stopped && now - since <= group.limit_ns) return since;
    const uint32_t cause = stopped ? kGaveUpStopped : kGaveUpLate;
    *static_cast<volatile uint32_t*>(&group.state->gave_up) = cause;
    *static_cast<volatile uint32_t*>(&group.control->gave_up) = cause;
    __threadfence_system();
    return 0;
  }

  uint32_t looks_ = 0;
  uint64_t since_ = 0;
};

// Waits until the data of all `slots` have arrived, and empties the slots. Null slots are skipped.
template <int kSlots>
__device__ __forceinline__ void take(char* const (&slots)[kSlots], uint4 (&values)[kSlots], const PeerGroup& group,
                                     Patience& patience) {
  bool all = true;
  do {
    all = true;
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      if (slots[i] != nullptr) values[i] = look(slots[i]);
    }
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      if (slots[i] != nullptr) all = all && has_come(values[i]);
    }
  } while (!all && patience.goes_on(group));
#pragma unroll
  for (int i = 0; i < kSlots; ++i) {
    if (slots[i] != nullptr) store_words(slots[i], {kEmpty, kEmpty, kEmpty, kEmpty});
  }
}

// Called by all threads of every block once they know the turn: the last block gives the next collective the other
// buffer.
__device__ __forceinline__ void pass_turn(const PeerGroup& group, uint32_t turn) {
  __syncthreads();
  if (threadIdx.x != 0 || atomicAdd(&group.state->arrived, 1) + 1 != gridDim.x) return;
  group.state->arrived = 0;
  group.state->turn = turn ^ 1;
}

}  // namespace optserve::kernels

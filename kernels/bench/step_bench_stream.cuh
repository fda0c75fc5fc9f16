// What the persistent step and the chain of launches share: a warp's stream of weights through its own ring in shared
// memory, and the sums. The words of a block are cut into units that are dealt to its warps in turn. Each warp requests
// its own units by bulk copies, so that a ring needs no barrier among warps, and a stream may run ahead of the product
// that is being computed, over the ends of phases.
#pragma once

#include "kernels/bench/step_bench_shape.h"
#include "kernels/dependent_launch.cuh"
#include "kernels/hopper_ptx.cuh"

namespace optserve::kernels::step_bench {

inline constexpr uint32_t kLanes = 32;
inline constexpr uint32_t kAll = 0xffffffffu;

// Prefetches to L2; both are multiples of 16.
__device__ __forceinline__ void prefetch_span(const void* address, uint32_t bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(__cvta_generic_to_global(address)), "r"(bytes));
}

// Tells when a wait has lasted too long. Only one of kLooks looks reads the clock.
template <uint32_t kLooks>
class Deadline {
 public:
  __device__ __forceinline__ bool asks_clock() { return ++looks_ % kLooks == 0; }
  __device__ __forceinline__ bool has_passed(uint64_t limit_ns) {
    since_ = begun(since_, limit_ns);
    return since_ == 0;
  }

 private:
  // Returns when the thread began to wait, as far as this is known, or 0 if that is longer ago than the limit.
  static __device__ __noinline__ uint64_t begun(uint64_t since, uint64_t limit_ns) {
    uint64_t now = 0;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    if (since == 0) return now;
    return now - since > limit_ns ? 0 : since;
  }

  uint32_t looks_ = 0;
  uint64_t since_ = 0;
};

// Decides how long a thread goes on looking for words of other blocks.
class Patience {
 public:
  __device__ __forceinline__ bool goes_on(const Watch& watch) {
    if (watch.sleep_ns != 0) __nanosleep(watch.sleep_ns);
    if (!deadline_.asks_clock()) return true;
    if (*static_cast<const volatile uint32_t*>(watch.gave_up) != 0) return false;
    if (!deadline_.has_passed(watch.limit_ns)) return true;
    *static_cast<volatile uint32_t*>(watch.gave_up) = 1;
    return false;
  }

 private:
  Deadline<1024> deadline_;
};

// The units of a warp in the products [first, end), in the order in which they are needed.
class Stream {
 public:
  __device__ __forceinline__ Stream(const Step& step, uint32_t first, uint32_t end)
      : step_(step), product_(first), end_(end), unit_(threadIdx.x / kLanes), warps_(blockDim.x / kLanes) {
    open();
    settle();
  }

  __device__ __forceinline__ bool done() const { return product_ == end_; }
  __device__ __forceinline__ bool is_in(uint32_t product) const { return product_ == product && product_ != end_; }
  __device__ __forceinline__ const char* from() const {
    return base_ + static_cast<uint64_t>(unit_) * step_.unit_bytes;
  }
  __device__ __forceinline__ uint32_t unit() const { return unit_; }              // within the block's words
  __device__ __forceinline__ uint32_t first_word() const { return first_word_; }  // of the block
  __device__ __forceinline__ void next() {
    unit_ += warps_;
    settle();
  }

 private:
  __device__ __forceinline__ void settle() {
    while (product_ != end_ && unit_ >= units_) {
      unit_ -= units_;  // dealing goes on with the warp whose turn it is
      ++product_;
      open();
    }
  }
  __device__ __forceinline__ void open() {
    if (product_ == end_) return;
    const Product& kind = step_.kinds[step_.kind_of(product_)];
    const WordRange words = step_.words_of(product_, blockIdx.x, gridDim.x);
    first_word_ = words.first;
    units_ = (words.end - words.first) << kind.parts_log2;
    base_ = step_.weights + step_.offset_of(product_) + static_cast<uint64_t>(first_word_) * 2 * kind.row_bytes;
  }

  const Step& step_;
  uint32_t product_, end_, unit_, warps_;
  uint32_t units_ = 0, first_word_ = 0;
  const char* base_ = nullptr;  // the weights of the block's first word
};

// Sets up barriers and cells. Called by all threads of a block before any Ring is made.
__device__ __forceinline__ void prepare_block(const Layout& layout, char* shared) {
  const auto base = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  auto* cells = reinterpret_cast<unsigned long long*>(shared + layout.cells);
  for (uint32_t i = threadIdx.x; i < layout.cell_count; i += blockDim.x) cells[i] = 0;
  const uint32_t barriers = layout.slots * (blockDim.x / kLanes);
  for (uint32_t i = threadIdx.x; i < barriers; i += blockDim.x) init_barrier(base + layout.barriers + 8 * i, 1);
  fence_barriers();
  __syncthreads();
}

// A warp's ring. `ahead` are the units that it has not requested yet, `here` those that it has not used yet.
class Ring {
 public:
  __device__ __forceinline__ Ring(const Step& step, const Layout& layout, char* shared, const Stream& stream)
      : step_(step), layout_(layout), shared_(shared), ahead_(stream), here_(stream), lane_(threadIdx.x % kLanes) {
    const uint32_t warp = threadIdx.x / kLanes;
    barriers_ = static_cast<uint32_t>(__cvta_generic_to_shared(shared)) + layout.barriers + 8 * warp * layout.slots;
    units_ = shared + layout.ring + warp * layout.slots * step.unit_bytes;
    for (uint32_t i = 0; i < layout.slots; ++i) ask(i);
  }

  __device__ __forceinline__ bool asked_all() const { return ahead_.done(); }

  // Prefetches to L2 what comes after the ring, at most `units` units.
  __device__ __forceinline__ void prefetch(uint32_t units) const {
    Stream more = ahead_;
    for (uint32_t i = 0; i < units && !more.done(); ++i, more.next()) {
      if (lane_ == 0) prefetch_span(more.from(), step_.unit_bytes);
    }
  }

  // Computes this warp's part of a product whose x lies in shared memory. publish(word, value) is called by one lane
  // for each word that this warp completes, and after_asking() by all lanes whenever the next unit has been requested.
  template <class Publish, class AfterAsking>
  __device__ __forceinline__ void multiply(uint32_t product, const char* x, const Watch& watch, Publish&& publish,
                                           AfterAsking&& after_asking) {
    const Product& kind = step_.kinds[step_.kind_of(product)];
    const uint32_t last_part = (1u << kind.parts_log2) - 1;
    while (here_.is_in(product)) {
      const uint32_t part = here_.unit() & last_part, index = here_.unit() >> kind.parts_log2;
      const uint32_t word = here_.first_word() + index;
      await_unit(watch);
      const uint32_t sum = __reduce_add_sync(kAll, sum_of_unit(part * step_.unit_bytes, kind.row_bytes, x));
      if (lane_ == 0) {  // first of all, since others wait for it
        const Sum whole = last_part == 0 ? Sum{true, sum} : join(index, last_part, sum);
        if (whole.complete) publish(word, mixed(whole.value + word));
      }
      next_unit();
      after_asking();
    }
  }

  // A block must not end while copies are on their way to its shared memory.
  __device__ __forceinline__ void drain(const Watch& watch) {
    while (in_flight_ > 0) {
      await_unit(watch);
      --in_flight_;
      advance();
    }
  }

 private:
  struct Sum {
    bool complete;
    uint32_t value;
  };

  // Adds a part to the cell of a word: the sum in the upper half, which may overflow, and the number of parts below it.
  // The warp that completes the word empties the cell, which is used again only behind the block's next barrier.
  __device__ __forceinline__ Sum join(uint32_t index, uint32_t last_part, uint32_t sum) const {
    auto* cell = reinterpret_cast<unsigned long long*>(shared_ + layout_.cells) + index;
    const unsigned long long own = (static_cast<unsigned long long>(sum) << 32) | 1;
    const unsigned long long others = atomicAdd(cell, own);
    if ((others & kAll) != last_part) return {false, 0};
    *cell = 0;
    return {true, static_cast<uint32_t>((others + own) >> 32)};
  }

  __device__ __forceinline__ void ask(uint32_t slot) {
    if (ahead_.done()) return;
    if (lane_ == 0) {
      const uint32_t barrier = barriers_ + 8 * slot;
      arrive_expecting(barrier, step_.unit_bytes);
      const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(units_ + slot * step_.unit_bytes));
      copy_bulk(to, ahead_.from(), step_.unit_bytes, barrier);
    }
    ++in_flight_;
    ahead_.next();
  }

  __device__ __forceinline__ void advance() {
    if (++slot_ != layout_.slots) return;
    slot_ = 0;
    parity_ ^= 1;
  }

  __device__ __forceinline__ void next_unit() {
    __syncwarp();  // all lanes have read the slot
    --in_flight_;
    ask(slot_);
    advance();
    here_.next();
  }

  // Waits for the oldest unit. A copy that never comes is an error of this program, so it stops the kernel.
  __device__ __forceinline__ void await_unit(const Watch& watch) const {
    Deadline<64> deadline;
    while (true) {
      uint32_t done = 0;
      asm volatile(
          "{\n.reg .pred done;\nmbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\nselp.u32 %0, 1, 0, done;\n}"
          : "=r"(done)
          : "r"(barriers_ + 8 * slot_), "r"(parity_)
          : "memory");
      if (done != 0) return;
      if (deadline.asks_clock() && deadline.has_passed(watch.limit_ns)) __trap();
    }
  }

  __device__ __forceinline__ uint32_t sum_of_unit(uint32_t begin, uint32_t row_bytes, const char* x) const {
    const char* unit = units_ + slot_ * step_.unit_bytes;
    uint32_t sum = 0;
#pragma unroll 4
    for (uint32_t i = lane_ * 16; i < step_.unit_bytes; i += kLanes * 16) {
      const uint32_t at = begin + i;
      const uint4 w = *reinterpret_cast<const uint4*>(unit + i);
      const uint4 v = *reinterpret_cast<const uint4*>(x + (at < row_bytes ? at : at - row_bytes));
      sum += (w.x ^ v.x) + (w.y ^ v.y) + (w.z ^ v.z) + (w.w ^ v.w);
    }
    return sum;
  }

  const Step& step_;
  const Layout& layout_;
  char* shared_;
  Stream ahead_, here_;
  uint32_t lane_;
  uint32_t barriers_ = 0;  // of this warp
  char* units_ = nullptr;
  uint32_t slot_ = 0;  // of the oldest unit, and thereby of the next one
  uint32_t parity_ = 0;
  uint32_t in_flight_ = 0;
};

}  // namespace optserve::kernels::step_bench

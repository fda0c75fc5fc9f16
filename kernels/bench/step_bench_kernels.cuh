// The kernels: the step as one persistent kernel, as one kernel for each phase, and the plain read of all weights.
#pragma once

#include "kernels/bench/step_bench_stream.cuh"

namespace optserve::kernels::step_bench {

inline constexpr uint32_t kThreadsMax = kWarpsMax * kLanes;
inline constexpr uint32_t kHeadLooks = 6;  // words that a lane reads of q, k and v of a head: up to 64 of each

// Two words with their tags. Each is one access of 64 bits, so that a tag comes with its word.
__device__ __forceinline__ ulonglong2 look_pair(const uint64_t* from) {
  ulonglong2 v;
  asm volatile("ld.relaxed.gpu.global.v2.u64 {%0, %1}, [%2];"
               : "=l"(v.x), "=l"(v.y)
               : "l"(__cvta_generic_to_global(from))
               : "memory");
  return v;
}
__device__ __forceinline__ uint64_t look_one(const uint64_t* from) {
  uint64_t v;
  asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(v) : "l"(__cvta_generic_to_global(from)) : "memory");
  return v;
}
__device__ __forceinline__ void store_tagged(uint64_t* to, uint32_t word, uint32_t tag) {
  const uint64_t v = (static_cast<uint64_t>(tag) << 32) | word;
  asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(__cvta_generic_to_global(to)), "l"(v) : "memory");
}
__device__ __forceinline__ bool has_tag(uint64_t v, uint32_t tag) { return static_cast<uint32_t>(v >> 32) == tag; }

// Copies a vector that is known to be complete to shared memory.
__device__ __forceinline__ void copy_vector(const uint32_t* from, uint32_t words, char* x) {
  for (uint32_t i = 4 * threadIdx.x; i < words; i += 4 * blockDim.x) {
    *reinterpret_cast<uint4*>(x + 4 * i) = __ldcg(reinterpret_cast<const uint4*>(from + i));
  }
}

// Waits for kPairs pairs of words a thread, from the thread's `first` on, and copies them to shared memory.
template <bool kWait, int kPairs>
__device__ __forceinline__ bool receive_pairs(const uint64_t* from, uint32_t first, uint32_t pairs, uint32_t tag,
                                              char* x, const Watch& watch) {
  ulonglong2 v[kPairs];
  bool missing[kPairs];
#pragma unroll
  for (int i = 0; i < kPairs; ++i) missing[i] = first + i * blockDim.x < pairs;
  Patience patience;
  while (true) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      if (missing[i]) v[i] = look_pair(from + 2 * (first + i * blockDim.x));
    }
    bool all = true;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      if (!missing[i]) continue;
      if (kWait && !(has_tag(v[i].x, tag) && has_tag(v[i].y, tag))) {
        all = false;
        continue;
      }
      missing[i] = false;
      const uint2 words = {static_cast<uint32_t>(v[i].x), static_cast<uint32_t>(v[i].y)};
      *reinterpret_cast<uint2*>(x + 8 * (first + i * blockDim.x)) = words;
    }
    if (all) return true;
    if (!patience.goes_on(watch)) return false;
  }
}

template <bool kWait>
__device__ __forceinline__ bool receive_vector(const uint64_t* from, uint32_t words, uint32_t tag, char* x,
                                               const Watch& watch) {
  const uint32_t pairs = words / 2, threads = blockDim.x;
  if (pairs <= threads) return receive_pairs<kWait, 1>(from, threadIdx.x, pairs, tag, x, watch);
  if (pairs <= 2 * threads) return receive_pairs<kWait, 2>(from, threadIdx.x, pairs, tag, x, watch);
  for (uint32_t first = threadIdx.x; first < pairs; first += 4 * threads) {
    if (!receive_pairs<kWait, 4>(from, first, pairs, tag, x, watch)) return false;
  }
  return true;
}

// The i-th word of q, k and v of a head, within qkv.
__device__ __forceinline__ uint32_t head_input(const Step& step, uint32_t head, uint32_t i) {
  return i / step.head_words * step.hidden_words + head * step.head_words + i % step.head_words;
}

// Stores the result of a head, from what each lane of a warp has added of q, k and v.
template <class Put>
__device__ __forceinline__ void finish_head(const Step& step, uint32_t head, uint32_t sum, Put&& put) {
  const uint32_t total = __reduce_add_sync(kAll, sum), first = head * step.head_words;
  for (uint32_t i = threadIdx.x % kLanes; i < step.head_words; i += kLanes) put(first + i, mixed(total + first + i));
}

template <bool kWait>
class PersistentStep {
 public:
  __device__ __forceinline__ PersistentStep(const Step& step, const Layout& layout, const Vectors& vectors,
                                            const Watch& watch, char* shared)
      : step_(step),
        layout_(layout),
        vectors_(vectors),
        watch_(watch),
        shared_(shared),
        ring_(step, layout, shared, Stream(step, 0, step.products())) {
    tag_ = *static_cast<const volatile uint32_t*>(vectors.turn) * step.phases() + 1;
  }

  __device__ __forceinline__ void run() {
    for (uint32_t product = 0; product < step_.products(); ++product) {
      if (!multiply(product)) return ring_.drain(watch_);
      if (step_.kind_of(product) == kQkv) attend(step_.phase_of(product) + 1);
    }
    pass_turn();
  }

 private:
  __device__ __forceinline__ uint64_t* vector(uint32_t phase) const {
    return vectors_.tagged + static_cast<size_t>(phase % kVectors) * vectors_.words_max;
  }

  // False if the block must give up, which all its threads then learn.
  __device__ __forceinline__ bool multiply(uint32_t product) {
    const uint32_t phase = step_.phase_of(product), kind = step_.kind_of(product);
    const uint32_t words = step_.kinds[kind].row_bytes / 4;
    char* x = shared_ + layout_.x[product % 2];
    delay(phase);
    const WordRange own = step_.words_of(product, blockIdx.x, gridDim.x);
    if (own.first == own.end) {
      // It may be late without anybody waiting for it, so the vector may be overwritten.
    } else if (phase == 0) {
      copy_vector(vectors_.x0, words, x);
    } else if (!receive_vector<kWait>(vector(phase - 1), words, tag_ + phase - 1, x, watch_)) {
      failed_ = true;
    }
    if (__syncthreads_or(failed_) != 0) return false;
    const auto nothing = [] {};
    if (kind == kHead) {
      ring_.multiply(
          product, x, watch_, [&](uint32_t word, uint32_t v) { vectors_.logits[word] = v; }, nothing);
    } else {
      const uint32_t tag = tag_ + phase;
      uint64_t* y = vector(phase);
      ring_.multiply(
          product, x, watch_, [&](uint32_t word, uint32_t v) { store_tagged(y + word, v, tag); }, nothing);
    }
    return true;
  }

  // Each head is one warp's, of which it waits for q, k and v alone.
  __device__ __forceinline__ void attend(uint32_t phase) {
    if (threadIdx.x >= kLanes) return;
    const uint64_t* from = vector(phase - 1);
    uint64_t* to = vector(phase);
    const uint32_t inputs = 3 * step_.head_words, tag = tag_ + phase;
    for (uint32_t head = blockIdx.x; head < step_.heads; head += gridDim.x) {
      uint64_t v[kHeadLooks] = {};
      Patience patience;
      bool all = true;
      do {
        all = true;
#pragma unroll
        for (uint32_t i = 0; i < kHeadLooks; ++i) {
          const uint32_t input = threadIdx.x + i * kLanes;
          if (input < inputs) v[i] = look_one(from + head_input(step_, head, input));
        }
#pragma unroll
        for (uint32_t i = 0; i < kHeadLooks; ++i) {
          if (kWait && threadIdx.x + i * kLanes < inputs) all = all && has_tag(v[i], tag - 1);
        }
      } while (!all && patience.goes_on(watch_));
      if (!all) failed_ = true;
      __syncwarp();
      uint32_t sum = 0;
#pragma unroll
      for (uint32_t i = 0; i < kHeadLooks; ++i) sum += static_cast<uint32_t>(v[i]);
      finish_head(step_, head, sum, [&](uint32_t word, uint32_t value) { store_tagged(to + word, value, tag); });
    }
  }

  __device__ __forceinline__ void delay(uint32_t phase) const {
    if (watch_.delay_ns == 0) return;
    const uint32_t warp = blockIdx.x * kWarpsMax + threadIdx.x / kLanes;
    if (mixed(mixed(tag_ + phase) + warp) % 256 == 0) __nanosleep(watch_.delay_ns);
  }

  // The last block to end counts the step, so that the next one has other tags.
  __device__ __forceinline__ void pass_turn() const {
    __syncthreads();
    if (threadIdx.x != 0 || atomicAdd(vectors_.turn + 1, 1) + 1 != gridDim.x) return;
    vectors_.turn[1] = 0;
    vectors_.turn[0] += 1;
  }

  const Step& step_;
  const Layout& layout_;
  const Vectors& vectors_;
  const Watch& watch_;
  char* shared_;
  Ring ring_;
  uint32_t tag_ = 0;  // of this step's first phase
  bool failed_ = false;
};

// All blocks must be resident at once.
template <bool kWait>
__global__ void __launch_bounds__(kThreadsMax, 1)
    persistent_step(const __grid_constant__ Step step, const __grid_constant__ Layout layout,
                    const __grid_constant__ Vectors vectors, const __grid_constant__ Watch watch) {
  extern __shared__ __align__(128) char shared[];
  prepare_block(layout, shared);
  PersistentStep<kWait>(step, layout, vectors, watch, shared).run();
}

// One product of the chain.
struct ChainLink {
  uint32_t product = 0;
  const uint32_t* x = nullptr;
  uint32_t* y = nullptr;
  uint32_t prefetched_units = 0;  // of a warp, to L2 before the wait, beyond its ring
  bool allows_at_once = false;    // else when the block has begun to run out of weights to request
};

__global__ void __launch_bounds__(kThreadsMax, 2)
    chain_product(const __grid_constant__ Step step, const __grid_constant__ Layout layout,
                  const __grid_constant__ ChainLink link, const __grid_constant__ Watch watch) {
  extern __shared__ __align__(128) char shared[];
  if (link.allows_at_once) allow_next();
  prepare_block(layout, shared);
  Ring ring(step, layout, shared, Stream(step, link.product, link.product + 1));
  bool allowed = link.allows_at_once;
  const auto allow_if_asked_all = [&] {
    if (allowed || !ring.asked_all()) return;
    allow_next();
    allowed = true;
  };
  allow_if_asked_all();
  ring.prefetch(link.prefetched_units);
  wait_for_previous();
  char* x = shared + layout.x[0];
  copy_vector(link.x, step.kinds[step.kind_of(link.product)].row_bytes / 4, x);
  __syncthreads();
  ring.multiply(
      link.product, x, watch, [&](uint32_t word, uint32_t v) { link.y[word] = v; }, allow_if_asked_all);
}

// A block of one warp for each head.
__global__ void chain_attention(const __grid_constant__ Step step, const uint32_t* qkv, uint32_t* y) {
  allow_next();
  wait_for_previous();
  uint32_t sum = 0;
  for (uint32_t i = threadIdx.x; i < 3 * step.head_words; i += kLanes) {
    sum += __ldcg(qkv + head_input(step, blockIdx.x, i));
  }
  finish_head(step, blockIdx.x, sum, [&](uint32_t word, uint32_t value) { y[word] = value; });
}

inline constexpr uint32_t kReadThreads = 512;  // two blocks of these a multiprocessor

// Adds all words to *sum.
__global__ void __launch_bounds__(kReadThreads, 2) read_all(const uint4* data, uint64_t count, uint32_t* sum) {
  constexpr int kLoads = 8;
  uint32_t own = 0;
  const uint64_t step = uint64_t{gridDim.x} * blockDim.x * kLoads;
  for (uint64_t first = uint64_t{blockIdx.x} * blockDim.x * kLoads + threadIdx.x; first < count; first += step) {
    uint4 v[kLoads];
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const uint64_t at = first + static_cast<uint64_t>(i) * blockDim.x;
      v[i] = at < count ? __ldcs(data + at) : uint4{};
    }
#pragma unroll
    for (int i = 0; i < kLoads; ++i) own += v[i].x + v[i].y + v[i].z + v[i].w;
  }
  own = __reduce_add_sync(kAll, own);
  if (threadIdx.x % kLanes == 0) atomicAdd(sum, own);
}

__global__ void fill_weights(uint4* data, uint64_t count) {
  for (uint64_t i = uint64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += uint64_t{gridDim.x} * blockDim.x) {
    data[i] = {weight_word(4 * i), weight_word(4 * i + 1), weight_word(4 * i + 2), weight_word(4 * i + 3)};
  }
}

}  // namespace optserve::kernels::step_bench

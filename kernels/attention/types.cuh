// What the attention kernels share: parts of a softmax, and which path serves a call.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "kernels/attention/attention.h"
#include "kernels/attention/ptx.cuh"
#include "kernels/element_ops.cuh"

namespace optserve::kernels {

inline constexpr int kWarpLanes = 32;
inline constexpr unsigned kAllLanes = 0xffffffff;
inline constexpr float kLog2E = 1.4426950408889634f;

// Two 16-bit elements in a word, the first in its low half.
template <typename T>
__device__ __forceinline__ uint32_t pack_pair(float low, float high) {
  if constexpr (std::is_same_v<T, __half>) {
    const __half2 pair = __floats2half2_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  }
}

// A softmax over some of the positions, for one dimension: the largest score (base 2), the sum of 2^(score - largest),
// and the same sum weighted by the values. Over no positions these are -inf, 0, 0.
struct Part {
  float largest = -INFINITY;
  float total = 0;
  float sum = 0;
};

// At least one of the two must have positions.
__device__ __forceinline__ Part join(const Part& a, const Part& b) {
  const float largest = fmaxf(a.largest, b.largest);
  const float scale_a = exp2_fast(a.largest - largest), scale_b = exp2_fast(b.largest - largest);
  return {largest, a.total * scale_a + b.total * scale_b, a.sum * scale_a + b.sum * scale_b};
}

inline bool has_fast_path(const AttentionArgs& args) {
  return args.element != Element::kF32 && (args.head_dim == 64 || args.head_dim == 80 || args.head_dim == 128) &&
         aligned_to_packs({args.qkv, args.keys, args.values, args.out});
}

}  // namespace optserve::kernels

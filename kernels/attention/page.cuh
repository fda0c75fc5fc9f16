// What a warp of decoding attention holds in registers: a page of keys or values (the 16 cells of a block and head,
// which are contiguous), the row of K or V that this step adds, and the softmax over its pages.
#pragma once

#include "kernels/attention/kv_cells.cuh"

namespace optserve::kernels {

// Each lane has one vector per load. Lanes in groups of kGroup load the first kGroup vectors of a cell; the rest of it
// (two vectors, for head_dim 80) is loaded by pairs of lanes. Either way, lanes 2t and 2t + 1 are among those that load
// token t.
template <typename C, int kDim>
struct Page {
  using Vector = std::conditional_t<kIsInt8<C>, uint2, uint4>;
  static constexpr int kRow = kDim / kCellElements;  // vectors of a cell
  static constexpr int kGroup = kRow >= 16 ? 16 : 8;
  static constexpr int kMain = kBlockTokens * kGroup / kWarpLanes;  // loads by groups of kGroup
  static constexpr int kSlices = kRow > kGroup ? 2 : 1;
  static constexpr int kLoads = kMain + kSlices - 1;
  static_assert(kRow == kGroup || kRow == kGroup + 2);

  Vector vectors[kLoads];
  float scale;  // of token lane / 2; int8 only

  static __device__ __forceinline__ int token(int load, int lane) {
    return load < kMain ? lane / kGroup * kMain + load : lane / 2;
  }
  static __device__ __forceinline__ int column(int slice, int lane) {
    return slice == 0 ? lane % kGroup : kGroup + lane % 2;
  }
  static constexpr __device__ __forceinline__ int slice(int load) { return load < kMain ? 0 : 1; }

  __device__ __forceinline__ void load(const C* cells, const float* scales, int lane) {
    const auto* from = reinterpret_cast<const Vector*>(cells);
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      vectors[i] = load_streaming(from + token(i, lane) * kRow + column(slice(i), lane));
    }
    if constexpr (kIsInt8<C>) scale = load_now(scales + lane / 2);
  }

  // Loads the first `count` tokens, and zeros for the others.
  __device__ __forceinline__ void load_some(const C* cells, const float* scales, int count, int lane) {
    const auto* from = reinterpret_cast<const Vector*>(cells);
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      vectors[i] = Vector{};
      if (token(i, lane) < count) vectors[i] = load_streaming(from + token(i, lane) * kRow + column(slice(i), lane));
    }
    if constexpr (kIsInt8<C>) {
      scale = 0;
      if (lane / 2 < count) scale = load_now(scales + lane / 2);
    }
  }
};

// A lane's columns of a row of this step's q, K or V, as the projection has left it.
template <typename T, typename C, int kDim>
struct NewRow {
  using P = Page<C, kDim>;
  uint4 raw[P::kSlices];

  __device__ __forceinline__ void load(const T* row, int lane) {
#pragma unroll
    for (int s = 0; s < P::kSlices; ++s) {
      raw[s] = load_streaming(reinterpret_cast<const uint4*>(row) + P::column(s, lane));
    }
  }
};

// A row of this step's K or V as a cell.
template <typename T, typename C, int kDim>
struct NewCells {
  using P = Page<C, kDim>;
  typename P::Vector vectors[P::kSlices];
  float scale;

  __device__ __forceinline__ void make(const NewRow<T, C, kDim>& row) {
    if constexpr (!kIsInt8<C>) {
#pragma unroll
      for (int s = 0; s < P::kSlices; ++s) vectors[s] = row.raw[s];
    } else {
      float elements[P::kSlices][kCellElements];
      uint32_t largest = 0;
#pragma unroll
      for (int s = 0; s < P::kSlices; ++s) {
        unpack<T>(row.raw[s], elements[s]);
#pragma unroll
        for (int e = 0; e < kCellElements; ++e) largest = larger_magnitude(largest, elements[s][e]);
      }
      const CellScale how(__reduce_max_sync(kAllLanes, largest));
#pragma unroll
      for (int s = 0; s < P::kSlices; ++s) vectors[s] = pack_cells(how, elements[s]);
      scale = how.scale;
    }
  }

  // Makes this cell token `token` of the page.
  __device__ __forceinline__ void put_into(P& page, int token, int lane) const {
#pragma unroll
    for (int i = 0; i < P::kLoads; ++i) {
      if (P::token(i, lane) == token) page.vectors[i] = vectors[P::slice(i)];
    }
    if (kIsInt8<C> && lane / 2 == token) page.scale = scale;
  }
};

// The softmax of a warp. A lane holds sums over its tokens for the dimensions of its columns.
template <typename T, typename C, int kDim>
struct WarpSoftmax {
  using P = Page<C, kDim>;
  static constexpr int kElements = kCellElements;
  float query[P::kSlices][kElements];  // times log2(e) / sqrt(head_dim)
  float sum[P::kSlices][kElements];
  float largest = -INFINITY;
  float total = 0;  // over tokens lane / 2

  // `row` holds the query.
  __device__ __forceinline__ void begin(const NewRow<T, C, kDim>& row, int lane) {
    const float scale = kLog2E / sqrtf(static_cast<float>(kDim));
#pragma unroll
    for (int s = 0; s < P::kSlices; ++s) {
      unpack<T>(row.raw[s], query[s]);
#pragma unroll
      for (int e = 0; e < kElements; ++e) {
        query[s][e] *= scale;
        sum[s][e] = 0;
      }
    }
  }

  static __device__ __forceinline__ void elements(const typename P::Vector& raw, float (&values)[kElements]) {
    if constexpr (kIsInt8<C>) {
      unpack_int8(raw, values);
    } else {
      unpack<C>(raw, values);
    }
  }

  __device__ __forceinline__ float product(const P& keys, int load) const {
    float key[kElements], result = 0;
    elements(keys.vectors[load], key);
#pragma unroll
    for (int e = 0; e < kElements; ++e) result += query[P::slice(load)][e] * key[e];
    return result;
  }

  // The score of token lane / 2. A group reduces its kMain sums over its lanes; half of the sums move in each step.
  __device__ __forceinline__ float score(const P& keys, int lane) const {
    float sums[P::kMain];
#pragma unroll
    for (int i = 0; i < P::kMain; ++i) sums[i] = product(keys, i);
#pragma unroll
    for (int half = P::kMain / 2; half > 0; half /= 2) {
      const bool upper = (lane & (2 * half)) != 0;
#pragma unroll
      for (int i = 0; i < half; ++i) {
        const float sent = upper ? sums[i] : sums[i + half];
        sums[i] = (upper ? sums[i + half] : sums[i]) + __shfl_xor_sync(kAllLanes, sent, 2 * half);
      }
    }
    if constexpr (P::kSlices == 2) sums[0] += product(keys, P::kMain);
    const float score = sums[0] + __shfl_xor_sync(kAllLanes, sums[0], 1);
    return kIsInt8<C> ? score * keys.scale : score;
  }

  // The weight of token lane / 2 from its score.
  __device__ __forceinline__ float weigh(float score) {
    float now = fmaxf(largest, score);
#pragma unroll
    for (int step = 2; step < kWarpLanes; step *= 2) now = fmaxf(now, __shfl_xor_sync(kAllLanes, now, step));
    const float scale = exp2_fast(largest - now), weight = exp2_fast(score - now);
    largest = now;
    total = total * scale + weight;
#pragma unroll
    for (int s = 0; s < P::kSlices; ++s) {
#pragma unroll
      for (int e = 0; e < kElements; ++e) sum[s][e] *= scale;
    }
    return weight;
  }

  __device__ __forceinline__ void add(const P& values, float weight, int lane) {
    if constexpr (kIsInt8<C>) weight *= values.scale;
#pragma unroll
    for (int i = 0; i < P::kLoads; ++i) {
      const float w = i < P::kMain ? __shfl_sync(kAllLanes, weight, 2 * P::token(i, lane)) : weight;
      float value[kElements];
      elements(values.vectors[i], value);
#pragma unroll
      for (int e = 0; e < kElements; ++e) sum[P::slice(i)][e] += w * value[e];
    }
  }

  // Sums over the lanes that hold the same dimensions.
  __device__ __forceinline__ void finish(float* sums, int lane) {
#pragma unroll
    for (int step = 2; step < kWarpLanes; step *= 2) total += __shfl_xor_sync(kAllLanes, total, step);
#pragma unroll
    for (int s = 0; s < P::kSlices; ++s) {
#pragma unroll
      for (int step = s == 0 ? P::kGroup : 2; step < kWarpLanes; step *= 2) {
#pragma unroll
        for (int e = 0; e < kElements; ++e) sum[s][e] += __shfl_xor_sync(kAllLanes, sum[s][e], step);
      }
      if (lane >= (s == 0 ? P::kGroup : 2)) continue;
#pragma unroll
      for (int e = 0; e < kElements; ++e) sums[P::column(s, lane) * kElements + e] = sum[s][e];
    }
  }
};

}  // namespace optserve::kernels

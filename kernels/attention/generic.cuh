// Attention of one row by one warp, for every element type and head_dim: the path for kF32 and for unusual sizes.
#pragma once

#include "kernels/attention/kv_cells.cuh"

namespace optserve::kernels {

// Lane l holds dimensions l, l + 32, ... of a row.
struct LaneRow {
  static constexpr int kSlices = kHeadDimMax / kWarpLanes;
  float largest = -INFINITY, total = 0;
  float query[kSlices];  // times log2(e) / sqrt(head_dim)
  float sum[kSlices];
};

template <typename T>
__device__ __forceinline__ void begin_row(LaneRow& row, const T* query, int head_dim, int lane) {
  const float scale = kLog2E / sqrtf(static_cast<float>(head_dim));
#pragma unroll
  for (int i = 0; i < LaneRow::kSlices; ++i) {
    const int dim = i * kWarpLanes + lane;
    row.query[i] = dim < head_dim ? to_float(query[dim]) * scale : 0.0f;
    row.sum[i] = 0;
  }
}

// The cells of consecutive tokens.
template <typename C>
struct CellRun {
  const C* keys;
  const C* values;
  const float* key_scales;    // int8 only
  const float* value_scales;  // same
};

// Adds the first `count` cells of a run, from 1 to kBatch, to the softmax.
template <int kBatch, typename C>
__device__ __forceinline__ void attend_cells(LaneRow& row, const CellRun<C>& run, int count, int head_dim) {
  const int lane = threadIdx.x % kWarpLanes;
  float scores[kBatch];
#pragma unroll
  for (int t = 0; t < kBatch; ++t) {
    scores[t] = 0;
#pragma unroll
    for (int i = 0; i < LaneRow::kSlices; ++i) {
      const int dim = i * kWarpLanes + lane;
      if (t < count && dim < head_dim) scores[t] += row.query[i] * to_float(run.keys[t * head_dim + dim]);
    }
  }
#pragma unroll
  for (int step = kWarpLanes / 2; step > 0; step /= 2) {
#pragma unroll
    for (int t = 0; t < kBatch; ++t) scores[t] += __shfl_xor_sync(kAllLanes, scores[t], step);
  }
  if constexpr (kIsInt8<C>) {
#pragma unroll
    for (int t = 0; t < kBatch; ++t) {
      if (t < count) scores[t] *= run.key_scales[t];
    }
  }
  float largest = row.largest;
#pragma unroll
  for (int t = 0; t < kBatch; ++t) {
    if (t < count) largest = fmaxf(largest, scores[t]);
  }
  const float scale = exp2_fast(row.largest - largest);
  row.largest = largest;
  row.total *= scale;
#pragma unroll
  for (int i = 0; i < LaneRow::kSlices; ++i) row.sum[i] *= scale;
#pragma unroll
  for (int t = 0; t < kBatch; ++t) {
    if (t >= count) continue;
    float weight = exp2_fast(scores[t] - largest);
    row.total += weight;
    if constexpr (kIsInt8<C>) weight *= run.value_scales[t];
#pragma unroll
    for (int i = 0; i < LaneRow::kSlices; ++i) {
      const int dim = i * kWarpLanes + lane;
      if (dim < head_dim) row.sum[i] += weight * to_float(run.values[t * head_dim + dim]);
    }
  }
}

// Attends to the pages first, first + step, ... that hold positions below `end`.
template <typename C>
__device__ __forceinline__ void attend_cache(LaneRow& row, const HeadCells<C>& cells, int first, int step, int end,
                                             int head_dim) {
  constexpr int kBatch = 4;
  for (int page = first; page * kBlockTokens < end; page += step) {
    const int64_t cell = cells.offset(cells.table[page]), scale = cells.scale_offset(cells.table[page]);
    const int tokens = min(kBlockTokens, end - page * kBlockTokens);
    for (int token = 0; token < tokens; token += kBatch) {
      CellRun<C> run{cells.keys + cell + token * head_dim, cells.values + cell + token * head_dim, nullptr, nullptr};
      if constexpr (kIsInt8<C>) {
        run.key_scales = cells.key_scales + scale + token;
        run.value_scales = cells.value_scales + scale + token;
      }
      attend_cells<kBatch>(row, run, min(kBatch, tokens - token), head_dim);
    }
  }
}

}  // namespace optserve::kernels

// The cells of one head in the KV cache: elements of the compute type as they are, or int8 with a scale for each token
// and head. Every kernel that stores an int8 cell stores the same bits: the scale is the largest magnitude / 127, and
// an element is cell * scale.
#pragma once

#include "kernels/attention/types.cuh"

namespace optserve::kernels {

// The elements that a lane reads at once: 16 bytes of the compute type, or 8 bytes of int8.
inline constexpr int kCellElements = 8;

// Cells are of type C: the element type, or int8_t.
template <typename C>
inline constexpr bool kIsInt8 = std::is_same_v<C, int8_t>;

__device__ __forceinline__ float to_float(int8_t value) { return static_cast<float>(value); }

// One head of one sequence in the cache.
template <typename C>
struct HeadCells {
  C* keys;               // of block 0
  C* values;             // of block 0
  float* key_scales;     // of block 0, one per token; int8 only
  float* value_scales;   // same
  int block_stride;      // in cells
  int scale_stride;      // from the scales of a block to those of the next
  const int32_t* table;  // blocks of the sequence

  __device__ __forceinline__ int64_t offset(int block) const { return static_cast<int64_t>(block) * block_stride; }
  __device__ __forceinline__ int64_t scale_offset(int block) const {
    return static_cast<int64_t>(block) * scale_stride;
  }
};

template <typename C>
__device__ __forceinline__ HeadCells<C> head_cells(const AttentionArgs& args, int64_t sequence, int head) {
  const int page = kBlockTokens * args.head_dim, first = head * page;
  HeadCells<C> cells{};
  cells.keys = static_cast<C*>(args.keys) + first;
  cells.values = static_cast<C*>(args.values) + first;
  cells.block_stride = args.heads * page;
  if constexpr (kIsInt8<C>) {
    cells.key_scales = args.key_scales + head * kBlockTokens;
    cells.value_scales = args.value_scales + head * kBlockTokens;
    cells.scale_stride = args.heads * kBlockTokens;
  }
  cells.table = args.block_table + load_now(args.table_rows + sequence) * args.table_stride;
  return cells;
}

// Calls launch(C()) with the type of the cells of a cache whose compute type is T.
template <typename T, typename Launch>
cudaError_t with_cells(const AttentionArgs& args, const Launch& launch) {
  return args.key_scales != nullptr ? launch(int8_t()) : launch(T());
}

// ---- int8

// The larger of two magnitudes, compared as bits: infinity is then larger than all numbers, and NaN larger than
// infinity.
__device__ __forceinline__ uint32_t larger_magnitude(uint32_t largest, float value) {
  return max(largest, __float_as_uint(value) & 0x7fffffffu);
}

// How the elements of a cell are stored, given the bits of their largest magnitude. An infinite or NaN magnitude makes
// the scale NaN or infinite too, and so the result of every row that attends to the cell. Below kLeast the cell is all
// zeros.
struct CellScale {
  static constexpr float kLeast = 0x1p-100f;
  float scale, steps;

  __device__ __forceinline__ explicit CellScale(uint32_t largest_bits) {
    const float largest = __uint_as_float(largest_bits);
    scale = __fdiv_rn(largest, 127.0f);
    steps = largest >= kLeast && largest < INFINITY ? __fdiv_rn(127.0f, largest) : 0.0f;
  }
  __device__ __forceinline__ int cell(float element) const { return __float2int_rn(__fmul_rn(element, steps)); }
};

__device__ __forceinline__ uint2 pack_cells(const CellScale& scale, const float (&elements)[kCellElements]) {
  uint32_t words[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float* four = elements + 4 * i;
    const uint32_t low = __byte_perm(scale.cell(four[0]), scale.cell(four[1]), 0x0040);
    const uint32_t high = __byte_perm(scale.cell(four[2]), scale.cell(four[3]), 0x0040);
    words[i] = __byte_perm(low, high, 0x5410);
  }
  return {words[0], words[1]};
}

// One warp stores `head_dim` elements as the cell of a token, kVector elements per lane and access.
template <int kVector, typename T>
__device__ __forceinline__ void store_cell(const T* from, int head_dim, int8_t* cell, float* scale) {
  constexpr int kSlices = kHeadDimMax / (kWarpLanes * kVector);
  const int lane = threadIdx.x % kWarpLanes;
  float elements[kSlices][kVector];
  uint32_t largest = 0;
#pragma unroll
  for (int i = 0; i < kSlices; ++i) {
    const int dim = (i * kWarpLanes + lane) * kVector;
#pragma unroll
    for (int e = 0; e < kVector; ++e) {
      elements[i][e] = dim < head_dim ? to_float(from[dim + e]) : 0.0f;
      largest = larger_magnitude(largest, elements[i][e]);
    }
  }
  const CellScale how(__reduce_max_sync(kAllLanes, largest));
#pragma unroll
  for (int i = 0; i < kSlices; ++i) {
    const int dim = (i * kWarpLanes + lane) * kVector;
    if (dim >= head_dim) continue;
    if constexpr (kVector == 4) {
      const auto byte = [&](int e) { return static_cast<signed char>(how.cell(elements[i][e])); };
      *reinterpret_cast<char4*>(cell + dim) = make_char4(byte(0), byte(1), byte(2), byte(3));
    } else {
      cell[dim] = static_cast<int8_t>(how.cell(elements[i][0]));
    }
  }
  if (lane == 0) *scale = how.scale;
}

}  // namespace optserve::kernels

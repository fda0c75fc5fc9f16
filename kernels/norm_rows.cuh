// Adding to the residual stream and normalising, for a row in the registers of one block. The kernels of norm.cu and
// peer_reduce.cu share it, so that they compute the same bits.
#pragma once

#include <algorithm>

#include "kernels/dependent_launch.cuh"
#include "kernels/element_ops.cuh"
#include "kernels/elementwise.h"

namespace optserve::kernels {

inline constexpr float kEpsilon = 1e-5f;
inline constexpr int kWarpsMax = 24;  // leaves 80 registers a thread
inline constexpr int kThreadsMax = 32 * kWarpsMax;

// The sum over the block, the same bits in every thread. Each call within a kernel needs its own `scratch`.
__device__ __forceinline__ float block_sum(float value, float* scratch) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(~0u, value, distance);
  const unsigned lane = threadIdx.x % 32, warps = blockDim.x / 32;
  if (lane == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  value = lane < warps ? scratch[lane] : 0.0f;
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(~0u, value, distance);
  return value;
}

// The packs of a thread; those beyond the row are zeros.
template <int kPacks>
using Packs = uint4[kPacks];

template <class T, int kPacks>
__device__ __forceinline__ void load_packs(const T* from, int64_t width, Packs<kPacks>& packs) {
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int64_t column = static_cast<int64_t>(threadIdx.x + p * blockDim.x) * kPack<T>;
    packs[p] = from != nullptr && column < width ? *reinterpret_cast<const uint4*>(from + column) : uint4{};
  }
}

template <class T, int kPacks>
__device__ __forceinline__ void store_packs(T* to, int64_t width, const Packs<kPacks>& packs) {
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int64_t column = static_cast<int64_t>(threadIdx.x + p * blockDim.x) * kPack<T>;
    if (column < width) *reinterpret_cast<uint4*>(to + column) = packs[p];
  }
}

// residual + (x + bias), rounded to T.
template <class T>
__device__ __forceinline__ uint4 add_pack(const uint4& residual, const uint4& x, const uint4& bias) {
  float sum[kPack<T>], addend[kPack<T>], shift[kPack<T>];
  unpack<T>(residual, sum);
  unpack<T>(x, addend);
  unpack<T>(bias, shift);
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i) sum[i] += addend[i] + shift[i];
  return pack<T>(sum);
}

template <class T>
__device__ __forceinline__ uint4 norm_pack(const uint4& row, const uint4& gamma, const uint4& beta, float2 statistics) {
  float value[kPack<T>], gain[kPack<T>], shift[kPack<T>];
  unpack<T>(row, value);
  unpack<T>(gamma, gain);
  unpack<T>(beta, shift);
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i) value[i] = (value[i] - statistics.x) * statistics.y * gain[i] + shift[i];
  return pack<T>(value);
}

// The mean of a row and 1 / sqrt(variance + epsilon).
template <class T, int kPacks>
__device__ __forceinline__ float2 statistics_of(const Packs<kPacks>& row, int64_t width) {
  __shared__ float sums[kWarpsMax], squares[kWarpsMax];
  float sum = 0, square = 0, value[kPack<T>];
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    unpack<T>(row[p], value);
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) sum += value[i];
  }
  const float mean = block_sum(sum, sums) / static_cast<float>(width);
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    if (static_cast<int64_t>(threadIdx.x + p * blockDim.x) * kPack<T> >= width) continue;
    unpack<T>(row[p], value);
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) square += (value[i] - mean) * (value[i] - mean);
  }
  return {mean, rsqrtf(block_sum(square, squares) / static_cast<float>(width) + kEpsilon)};
}

// Prefetches what no kernel of a step writes: since the last step, a whole model's weights have gone through L2.
template <class T, int kPacks>
__device__ __forceinline__ void prefetch_vectors(const NormArgs& args) {
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int64_t column = static_cast<int64_t>(threadIdx.x + p * blockDim.x) * kPack<T>;
    if (column >= args.width) continue;
    if (args.bias != nullptr) prefetch_line(static_cast<const T*>(args.bias) + column);
    if (args.out != nullptr) prefetch_line(static_cast<const T*>(args.gamma) + column);
    if (args.out != nullptr) prefetch_line(static_cast<const T*>(args.beta) + column);
  }
}

// This depends on the width alone, so that the order of a row's sums does not depend on the number of rows.
template <class T, int kPacks>
int threads_for(int64_t width) {
  return static_cast<int>((width / kPack<T> + 32 * kPacks - 1) / (32 * kPacks) * 32);
}

}  // namespace optserve::kernels

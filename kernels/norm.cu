#include <algorithm>

#include "kernels/dependent_launch.cuh"
#include "kernels/element_ops.cuh"
#include "kernels/elementwise.h"

namespace optserve::kernels {
namespace {

constexpr float kEpsilon = 1e-5f;
constexpr int kWarpsMax = 24;  // leaves 80 registers a thread
constexpr int kThreadsMax = 32 * kWarpsMax;
constexpr int kScalarThreads = 256;
constexpr int64_t kManyElements = 2 << 20;  // from which it pays that a block takes several rows

// The sum over the block, the same bits in every thread. Each call of a kernel has `scratch` of its own.
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

// What no kernel of a step writes; since the last step the weights of a whole model have passed through L2.
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

// Without x this is the first norm of a step, which lets the next kernel begin only after its wait: attention relies on
// it (kernels::AttentionArgs::is_cache_settled).

// One block a row, which stays in registers: packs threadIdx.x, threadIdx.x + blockDim.x, ... Loads stand in front of
// the stores that the compiler could not move them above.
template <class T, int kPacks>
__global__ void __launch_bounds__(kThreadsMax) norm_packed_kernel(NormArgs args) {
  if (args.x != nullptr) allow_next();
  prefetch_vectors<T, kPacks>(args);
  wait_for_previous();
  if (args.x == nullptr) allow_next();

  const int64_t first = blockIdx.x * args.width;
  T* residual = static_cast<T*>(args.residual) + first;
  const T* x = args.x != nullptr ? static_cast<const T*>(args.x) + first : nullptr;
  Packs<kPacks> row;
  load_packs<T, kPacks>(residual, args.width, row);
  if (x != nullptr) {
    Packs<kPacks> addend, bias;
    load_packs<T, kPacks>(x, args.width, addend);
    load_packs<T, kPacks>(static_cast<const T*>(args.bias), args.width, bias);
#pragma unroll
    for (int p = 0; p < kPacks; ++p) row[p] = add_pack<T>(row[p], addend[p], bias[p]);
    store_packs<T, kPacks>(residual, args.width, row);
  }
  if (args.out == nullptr) return;
  Packs<kPacks> gamma, beta;  // on their way during the sums
  load_packs<T, kPacks>(static_cast<const T*>(args.gamma), args.width, gamma);
  load_packs<T, kPacks>(static_cast<const T*>(args.beta), args.width, beta);
  const float2 statistics = statistics_of<T, kPacks>(row, args.width);
#pragma unroll
  for (int p = 0; p < kPacks; ++p) row[p] = norm_pack<T>(row[p], gamma[p], beta[p], statistics);
  store_packs<T, kPacks>(static_cast<T*>(args.out) + first, args.width, row);
}

// The same bits for many rows: a block takes rows blockIdx.x, blockIdx.x + gridDim.x, ..., so that the vectors, which
// are as much to read as a row, are read once. Where a thread has one pack, its registers hold the next row as well,
// which is on its way during the present one.
template <class T, int kPacks>
__global__ void __launch_bounds__(kThreadsMax) norm_rows_kernel(NormArgs args) {
  if (args.x != nullptr) allow_next();
  wait_for_previous();
  if (args.x == nullptr) allow_next();

  Packs<kPacks> row, next, next_addend, bias, gamma, beta;
  const auto load_next = [&](int64_t index) {
    const auto at = [&](const void* rows) -> const T* {
      return rows != nullptr && index < args.num_rows ? static_cast<const T*>(rows) + index * args.width : nullptr;
    };
    load_packs<T, kPacks>(at(args.residual), args.width, next);
    load_packs<T, kPacks>(at(args.x), args.width, next_addend);
  };
  load_next(blockIdx.x);
  load_packs<T, kPacks>(static_cast<const T*>(args.bias), args.width, bias);
  load_packs<T, kPacks>(static_cast<const T*>(args.gamma), args.width, gamma);
  load_packs<T, kPacks>(static_cast<const T*>(args.beta), args.width, beta);
  for (int64_t index = blockIdx.x; index < args.num_rows; index += gridDim.x) {
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      row[p] = args.x != nullptr ? add_pack<T>(next[p], next_addend[p], bias[p]) : next[p];
    }
    if (kPacks == 1) load_next(index + gridDim.x);
    const int64_t first = index * args.width;
    if (args.x != nullptr) store_packs<T, kPacks>(static_cast<T*>(args.residual) + first, args.width, row);
    if (args.out != nullptr) {
      const float2 statistics = statistics_of<T, kPacks>(row, args.width);
#pragma unroll
      for (int p = 0; p < kPacks; ++p) row[p] = norm_pack<T>(row[p], gamma[p], beta[p], statistics);
      store_packs<T, kPacks>(static_cast<T*>(args.out) + first, args.width, row);
    }
    if (kPacks > 1) load_next(index + gridDim.x);
  }
}

// Any width and alignment. A thread comes back to the elements of `residual` that it wrote itself.
template <class T>
__global__ void __launch_bounds__(kScalarThreads) norm_scalar_kernel(NormArgs args) {
  if (args.x != nullptr) allow_next();
  wait_for_previous();
  if (args.x == nullptr) allow_next();
  __shared__ float sums[kWarpsMax], squares[kWarpsMax];
  const int64_t first = blockIdx.x * args.width;
  T* residual = static_cast<T*>(args.residual) + first;
  const auto* x = static_cast<const T*>(args.x);
  const auto* bias = static_cast<const T*>(args.bias);
  float sum = 0, square = 0;
  for (int64_t i = threadIdx.x; i < args.width; i += kScalarThreads) {
    if (x != nullptr) {
      const float addend = to_float(x[first + i]) + (bias != nullptr ? to_float(bias[i]) : 0.0f);
      residual[i] = from_float<T>(to_float(residual[i]) + addend);
    }
    sum += to_float(residual[i]);
  }
  if (args.out == nullptr) return;
  const float mean = block_sum(sum, sums) / static_cast<float>(args.width);
  for (int64_t i = threadIdx.x; i < args.width; i += kScalarThreads) {
    const float distance = to_float(residual[i]) - mean;
    square += distance * distance;
  }
  const float scale = rsqrtf(block_sum(square, squares) / static_cast<float>(args.width) + kEpsilon);
  T* out = static_cast<T*>(args.out) + first;
  for (int64_t i = threadIdx.x; i < args.width; i += kScalarThreads) {
    const float gamma = to_float(static_cast<const T*>(args.gamma)[i]);
    const float beta = to_float(static_cast<const T*>(args.beta)[i]);
    out[i] = from_float<T>((to_float(residual[i]) - mean) * scale * gamma + beta);
  }
}

// Blocks of so many threads that are on the device at once. All GPUs are of one kind.
template <class T, int kPacks>
int64_t resident_blocks(int threads) {
  static const int multiprocessors = [] {
    int device = 0, count = 0;
    (void)cudaGetDevice(&device);
    return cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) == cudaSuccess ? count : 1;
  }();
  int each = 0;
  (void)cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, norm_rows_kernel<T, kPacks>, threads, 0);
  return int64_t{std::max(each, 1)} * multiprocessors;
}

// By shape alone, so that the order of a row's sums is the same however many rows there are.
template <class T, int kPacks>
int threads_for(int64_t width) {
  return static_cast<int>((width / kPack<T> + 32 * kPacks - 1) / (32 * kPacks) * 32);
}

template <class T, int kPacks>
cudaError_t launch_rows(const NormArgs& args, cudaStream_t stream) {
  const int threads = threads_for<T, kPacks>(args.width);
  const int64_t blocks = std::min(args.num_rows, resident_blocks<T, kPacks>(threads));
  const LaunchShape shape{dim3(static_cast<unsigned>(blocks)), dim3(static_cast<unsigned>(threads))};
  return launch_dependent<norm_rows_kernel<T, kPacks>>(shape, stream, args);
}

template <class T, int kPacks>
cudaError_t launch_packed(const NormArgs& args, cudaStream_t stream) {
  if constexpr (kPacks <= 2) {
    if (args.num_rows * args.width >= kManyElements) return launch_rows<T, kPacks>(args, stream);
  }
  const LaunchShape shape{dim3(static_cast<unsigned>(args.num_rows)),
                          dim3(static_cast<unsigned>(threads_for<T, kPacks>(args.width)))};
  return launch_dependent<norm_packed_kernel<T, kPacks>>(shape, stream, args);
}

// As many threads as fit: one row must be done soon, and the order of a row's sums depends on its width alone.
template <class T>
cudaError_t launch_norm(const NormArgs& args, cudaStream_t stream) {
  const int64_t packs = args.width / kPack<T>;
  const bool packed = args.width % kPack<T> == 0 &&
                      aligned_to_packs({args.x, args.bias, args.residual, args.gamma, args.beta, args.out});
  if (packed && packs <= kThreadsMax) return launch_packed<T, 1>(args, stream);
  if (packed && packs <= 2 * kThreadsMax) return launch_packed<T, 2>(args, stream);
  if (packed && packs <= 4 * kThreadsMax) return launch_packed<T, 4>(args, stream);
  const LaunchShape shape{dim3(static_cast<unsigned>(args.num_rows)), dim3(kScalarThreads)};
  return launch_dependent<norm_scalar_kernel<T>>(shape, stream, args);
}

}  // namespace

cudaError_t add_and_norm(const NormArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0 || args.width == 0) return cudaSuccess;
  return with_element(args.element, [&](auto zero) { return launch_norm<decltype(zero)>(args, stream); });
}

}  // namespace optserve::kernels

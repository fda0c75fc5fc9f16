#include <algorithm>

#include "kernels/norm_rows.cuh"

namespace optserve::kernels {
namespace {

constexpr int kScalarThreads = 256;
constexpr int64_t kManyElements = 2 << 20;  // from here on it pays for a block to take several rows

// Without x this is the first norm of a step. It lets the next kernel begin only after its own wait, on which attention
// relies (kernels::AttentionArgs::is_cache_settled).

// One block per row. The row stays in registers: a thread has packs threadIdx.x, threadIdx.x + blockDim.x, ... Loads
// come before stores in the code, since the compiler could not move them above those.
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
  Packs<kPacks> gamma, beta;  // loaded while the sums are computed
  load_packs<T, kPacks>(static_cast<const T*>(args.gamma), args.width, gamma);
  load_packs<T, kPacks>(static_cast<const T*>(args.beta), args.width, beta);
  const float2 statistics = statistics_of<T, kPacks>(row, args.width);
#pragma unroll
  for (int p = 0; p < kPacks; ++p) row[p] = norm_pack<T>(row[p], gamma[p], beta[p], statistics);
  store_packs<T, kPacks>(static_cast<T*>(args.out) + first, args.width, row);
}

// The same bits for many rows: a block takes rows blockIdx.x, blockIdx.x + gridDim.x, ..., so that gamma, beta and
// bias, each as large as a row, are read only once. If a thread has one pack, its registers also hold the next row,
// which is loaded while the current one is computed.
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

// For any width and alignment. A thread rereads only those elements of `residual` that it wrote itself.
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

// How many blocks of so many threads are resident on the device at once. All GPUs of a process are of the same model.
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

// As many threads as fit, for the latency of a single row. The order of a row's sums depends on its width alone.
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

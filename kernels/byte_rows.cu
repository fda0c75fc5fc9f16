#include <cuda_fp8.h>

#include <algorithm>

#include "kernels/byte_rows.h"
#include "kernels/dependent_launch.cuh"
#include "kernels/element_ops.cuh"

namespace optserve::kernels {
namespace {

constexpr int kThreadsMax = 512;
constexpr int kInputs = 16;    // of a thread at a time
constexpr int kLargest = 448;  // of e4m3

// A magnitude as an integer: integers have the order of the floats, with NaN above all of them.
__device__ __forceinline__ unsigned magnitude_of(float value) { return __float_as_uint(value) & 0x7fffffffu; }

template <class T>
__device__ __forceinline__ void load_inputs(const T* from, float (&values)[kInputs]) {
  float low[8], high[8];
  unpack<T>(*reinterpret_cast<const uint4*>(from), low);
  unpack<T>(*reinterpret_cast<const uint4*>(from + 8), high);
#pragma unroll
  for (int i = 0; i < 8; ++i) values[i] = low[i], values[i + 8] = high[i];
}

__device__ __forceinline__ unsigned codes_of(float a, float b, float c, float d, float scale) {
  const float2 low{__fdiv_rn(a, scale), __fdiv_rn(b, scale)}, high{__fdiv_rn(c, scale), __fdiv_rn(d, scale)};
  const unsigned first = __nv_cvt_float2_to_fp8x2(low, __NV_SATFINITE, __NV_E4M3);
  return first | static_cast<unsigned>(__nv_cvt_float2_to_fp8x2(high, __NV_SATFINITE, __NV_E4M3)) << 16;
}

// One block per row.
template <class T>
__global__ void __launch_bounds__(kThreadsMax) byte_rows_kernel(ByteRowsArgs args) {
  __shared__ unsigned largest[kThreadsMax / 32];
  allow_next();
  wait_for_previous();
  const T* x = static_cast<const T*>(args.x) + blockIdx.x * args.x_stride;
  unsigned most = 0;
  float values[kInputs];
  for (int64_t at = threadIdx.x * kInputs; at < args.in; at += blockDim.x * kInputs) {
    load_inputs(x + at, values);
#pragma unroll
    for (int i = 0; i < kInputs; ++i) most = max(most, magnitude_of(values[i]));
  }
  most = __reduce_max_sync(~0u, most);
  if (threadIdx.x % 32 == 0) largest[threadIdx.x / 32] = most;
  __syncthreads();
  most = __reduce_max_sync(~0u, threadIdx.x % 32 < blockDim.x / 32 ? largest[threadIdx.x % 32] : 0);
  const float scale = most == 0 ? 1.0f : __fdiv_rn(__uint_as_float(most), static_cast<float>(kLargest));
  if (threadIdx.x == 0) args.scales[blockIdx.x] = scale;
  auto* codes = static_cast<char*>(args.codes) + blockIdx.x * args.in;
  for (int64_t at = threadIdx.x * kInputs; at < args.in; at += blockDim.x * kInputs) {
    if (args.in > blockDim.x * kInputs) load_inputs(x + at, values);
    uint4 packed;
    packed.x = codes_of(values[0], values[1], values[2], values[3], scale);
    packed.y = codes_of(values[4], values[5], values[6], values[7], scale);
    packed.z = codes_of(values[8], values[9], values[10], values[11], scale);
    packed.w = codes_of(values[12], values[13], values[14], values[15], scale);
    *reinterpret_cast<uint4*>(codes + at) = packed;
  }
}

template <class T>
cudaError_t launch(const ByteRowsArgs& args, cudaStream_t stream) {
  const int64_t pieces = (args.in + kInputs - 1) / kInputs;
  const auto threads = static_cast<unsigned>(std::min<int64_t>(kThreadsMax, (pieces + 31) / 32 * 32));
  return launch_dependent<byte_rows_kernel<T>>({dim3(static_cast<unsigned>(args.rows)), dim3(threads)}, stream, args);
}

}  // namespace

bool can_byte_rows(const ByteRowsArgs& args) {
  return args.element != Element::kF32 && args.in > 0 && args.in % kInputs == 0 &&
         (args.rows <= 1 || args.x_stride % 8 == 0) && args.rows < (int64_t{1} << 31) &&
         aligned_to_packs({args.x, args.codes});
}

cudaError_t byte_rows(const ByteRowsArgs& args, cudaStream_t stream) {
  if (!can_byte_rows(args)) return cudaErrorInvalidValue;
  if (args.rows == 0) return cudaSuccess;
  return args.element == Element::kF16 ? launch<__half>(args, stream) : launch<__nv_bfloat16>(args, stream);
}

}  // namespace optserve::kernels

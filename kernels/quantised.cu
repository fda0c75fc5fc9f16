#include <algorithm>

#include "kernels/element_ops.cuh"
#include "kernels/quantised.h"
#include "kernels/quantised_values.cuh"

namespace optserve::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kLanes = 32;
constexpr int64_t kBlocksMax = 1 << 20;

unsigned blocks_for(int64_t threads) {
  return static_cast<unsigned>(std::clamp<int64_t>((threads + kThreads - 1) / kThreads, 1, kBlocksMax));
}

__device__ __forceinline__ int64_t global_thread() { return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; }
__device__ __forceinline__ int64_t grid_threads() { return static_cast<int64_t>(gridDim.x) * kThreads; }

// The unit at one place of the packed order.
struct Place {
  int64_t octet, unit;

  __device__ __forceinline__ Place(int64_t index, int64_t units)
      : octet(index / kBandOctets / units * kBandOctets + index % kBandOctets), unit(index / kBandOctets % units) {}
};

// Input `i` of the four inputs that a lane owns in a step.
__device__ __forceinline__ int64_t input_of(int step, int quad, int i) {
  return 16 * step + 2 * quad + i % 2 + i / 2 * 8;
}

// The stored code at [output, input], with the bias of packed codes; outside the matrix it is the code of zero.
template <WeightFormat kFormat>
__device__ __forceinline__ uint32_t packed_code(const StoredCodes& stored, int64_t output, int64_t input) {
  const bool inside = output < stored.out && input < stored.in;
  const auto* values = static_cast<const uint8_t*>(stored.values);
  if constexpr (kFormat == WeightFormat::kInt4) {
    if (!inside) return 8;
    const uint32_t pair = values[output * (stored.in / 2) + input / 2];
    return ((pair >> (input % 2 * 4)) & 15) ^ 8;  // two's complement of four bits plus 8
  } else {
    const uint32_t code = inside ? values[output * stored.in + input] : 0;
    return kFormat == WeightFormat::kInt8 ? code ^ 0x80 : code;
  }
}

// Each thread makes the 16 bytes of one lane.
template <WeightFormat kFormat>
__global__ void __launch_bounds__(kThreads) pack_kernel(StoredCodes stored, uint4* values) {
  const int64_t units = units_of(kFormat, stored.in);
  const int64_t count = bands_of(stored.out) * kBandOctets * units * kLanes;
  for (int64_t i = global_thread(); i < count; i += grid_threads()) {
    const int lane = static_cast<int>(i % kLanes), quad = lane % 4;
    const Place place(i / kLanes, units);
    const int64_t unit = place.unit, output = place.octet * kOctet + lane / 4;
    const int64_t begin = unit * unit_inputs(kFormat);
    uint32_t words[4] = {};
    for (int step = 0; step < kUnitSteps<kFormat>; ++step) {
      for (int k = 0; k < 4; ++k) {
        const uint32_t code = packed_code<kFormat>(stored, output, begin + input_of(step, quad, k));
        if constexpr (kFormat == WeightFormat::kInt4) {
          const int nibble = step % 2 * 2 + k / 2 + k % 2 * 4;
          words[step / 2] |= code << (4 * nibble);
        } else {
          words[step] |= code << (8 * k);
        }
      }
    }
    values[i] = {words[0], words[1], words[2], words[3]};
  }
  __threadfence();
}

__global__ void __launch_bounds__(kThreads) pack_scales_kernel(StoredCodes stored, int64_t count, float* scales) {
  const bool grouped = stored.format == WeightFormat::kInt4;
  const int64_t groups = grouped ? units_of(stored.format, stored.in) : 1;
  for (int64_t i = global_thread(); i < count; i += grid_threads()) {
    const Place place(i / kOctet, groups);
    const int64_t group = place.unit, output = place.octet * kOctet + i % kOctet;
    scales[i] = output < stored.out ? stored.scales[output * groups + group] : 0.0f;
  }
  __threadfence();
}

// A lane's four values of a step, as fp32.
template <WeightFormat kFormat, int kStep>
__device__ __forceinline__ void decode(const uint32_t (&words)[4], float (&values)[4]) {
  const StepPairs pairs = step_of<__half, kFormat, kStep>(words);
  const float2 low = __half22float2(reinterpret_cast<const __half2&>(pairs.low));
  const float2 high = __half22float2(reinterpret_cast<const __half2&>(pairs.high));
  values[0] = low.x, values[1] = low.y, values[2] = high.x, values[3] = high.y;
}

template <class T, WeightFormat kFormat, int kStep>
__device__ __forceinline__ void store_step(const uint32_t (&words)[4], float scale, int quad, int64_t left, T* row) {
  float values[4];
  decode<kFormat, kStep>(words, values);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t input = input_of(kStep, quad, i);
    if (input < left) row[input] = from_float<T>(__fmul_rn(values[i], scale));
  }
  if constexpr (kStep + 1 < kUnitSteps<kFormat>) store_step<T, kFormat, kStep + 1>(words, scale, quad, left, row);
}

template <class T, WeightFormat kFormat>
__global__ void __launch_bounds__(kThreads) dequantise_kernel(DequantiseArgs args) {
  const int64_t units = units_of(kFormat, args.in);
  const int64_t count = bands_of(args.rows) * kBandOctets * units * kLanes;
  for (int64_t i = global_thread(); i < count; i += grid_threads()) {
    const int lane = static_cast<int>(i % kLanes);
    const Place place(i / kLanes, units);
    const int64_t unit = place.unit, output = place.octet * kOctet + lane / 4;
    if (output >= args.rows) continue;
    const uint4 raw = static_cast<const uint4*>(args.values)[i];
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
    const int64_t group = kFormat == WeightFormat::kInt4 ? i / kLanes : place.octet;
    const int64_t begin = unit * unit_inputs(kFormat);
    T* row = static_cast<T*>(args.out) + output * args.in + begin;
    store_step<T, kFormat, 0>(words, args.scales[group * kOctet + lane / 4], lane % 4, args.in - begin, row);
  }
}

__device__ __forceinline__ uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

template <WeightFormat kFormat>
__device__ __forceinline__ uint32_t random_code(const RandomCodes& codes, int64_t row, int64_t col) {
  const auto index = static_cast<uint64_t>((codes.first_row + row) * codes.whole_cols + codes.first_col + col);
  const float unit = __uint2float_rn(static_cast<uint32_t>(mix(codes.key + index) >> 40)) * 0x1p-23f - 1.0f;
  if constexpr (kFormat == WeightFormat::kFp8) {
    return __nv_cvt_float_to_fp8(unit * 448.0f, __NV_SATFINITE, __NV_E4M3);
  } else {
    const float limit = kFormat == WeightFormat::kInt8 ? 127.0f : 7.0f;
    return static_cast<uint32_t>(__float2int_rn(__fmul_rn(unit, limit)));
  }
}

// Each thread makes one byte.
template <WeightFormat kFormat>
__global__ void __launch_bounds__(kThreads) random_codes_kernel(RandomCodes codes, uint8_t* out) {
  constexpr int kInByte = kFormat == WeightFormat::kInt4 ? 2 : 1;
  const int64_t row_bytes = codes.cols / kInByte;
  for (int64_t i = global_thread(); i < codes.rows * row_bytes; i += grid_threads()) {
    const int64_t row = i / row_bytes, col = i % row_bytes * kInByte;
    uint32_t byte = random_code<kFormat>(codes, row, col);
    if constexpr (kInByte == 2) byte = (byte & 15) | (random_code<kFormat>(codes, row, col + 1) << 4);
    out[i] = static_cast<uint8_t>(byte);
  }
}

__global__ void __launch_bounds__(kThreads) fill_kernel(float value, int64_t count, float* out) {
  for (int64_t i = global_thread(); i < count; i += grid_threads()) out[i] = value;
}

// Calls launch() with the format as a constant.
template <class Launch>
cudaError_t with_format(WeightFormat format, const Launch& launch) {
  switch (format) {
    case WeightFormat::kInt8:
      return launch(std::integral_constant<WeightFormat, WeightFormat::kInt8>());
    case WeightFormat::kFp8:
      return launch(std::integral_constant<WeightFormat, WeightFormat::kFp8>());
    case WeightFormat::kInt4:
      return launch(std::integral_constant<WeightFormat, WeightFormat::kInt4>());
    case WeightFormat::kPlain:
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t pack_quantised(const StoredCodes& stored, void* values, float* scales, cudaStream_t stream) {
  const int64_t lanes = packed_bytes(stored.format, stored.out, stored.in) / 16;
  if (lanes == 0) return cudaSuccess;
  const int64_t scale_count = packed_scales(stored.format, stored.out, stored.in);
  pack_scales_kernel<<<blocks_for(scale_count), kThreads, 0, stream>>>(stored, scale_count, scales);
  return with_format(stored.format, [&](auto format) {
    pack_kernel<format.value><<<blocks_for(lanes), kThreads, 0, stream>>>(stored, static_cast<uint4*>(values));
    return cudaGetLastError();
  });
}

cudaError_t dequantise(const DequantiseArgs& args, cudaStream_t stream) {
  const int64_t lanes = packed_bytes(args.format, args.rows, args.in) / 16;
  if (lanes == 0) return cudaSuccess;
  return with_format(args.format, [&](auto format) {
    return with_element(args.element, [&](auto zero) {
      dequantise_kernel<decltype(zero), format.value><<<blocks_for(lanes), kThreads, 0, stream>>>(args);
      return cudaGetLastError();
    });
  });
}

cudaError_t fill_random_codes(const RandomCodes& codes, void* out, cudaStream_t stream) {
  const int64_t bytes = codes.rows * codes.cols / (codes.format == WeightFormat::kInt4 ? 2 : 1);
  if (bytes == 0) return cudaSuccess;
  return with_format(codes.format, [&](auto format) {
    random_codes_kernel<format.value><<<blocks_for(bytes), kThreads, 0, stream>>>(codes, static_cast<uint8_t*>(out));
    return cudaGetLastError();
  });
}

cudaError_t fill(float value, int64_t count, float* out, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  fill_kernel<<<blocks_for(count), kThreads, 0, stream>>>(value, count, out);
  return cudaGetLastError();
}

}  // namespace optserve::kernels

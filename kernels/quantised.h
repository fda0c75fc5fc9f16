// Quantised weights on the device: the order of bytes that the products of quantised_linear.h and wgmma_linear.h read,
// and the conversions to that order and back.
//
// A packed matrix is made of units: eight outputs (an octet) times unit_inputs() inputs, 512 bytes. The order is [out /
// 64][units of an octet][8 octets]: the 64 outputs of a unit are 4 KiB of contiguous memory, which one bulk copy
// fetches. Places beyond the matrix hold zero. Lane 4 g + t of a warp owns the 16 bytes at 16 (4 g + t) of a unit. They
// hold, for output g of the octet and each step s of 16 inputs, the inputs 16 s + {2 t, 2 t + 1, 2 t + 8, 2 t + 9}.
// That is a lane's part of an operand of mma.m16n8k16 (and, two octets together, of wgmma), so one access loads it in
// the form in which it is multiplied.
//
// int8 and fp8: word s of the 16 bytes is step s. int8 is stored with 128 added, fp8 is e4m3 as it is.
// int4: word w holds steps 2 w and 2 w + 1; nibbles 0, 4 are the first pair of inputs of the even step, 1, 5 its second
// pair, 2, 6 and 3, 7 those of the odd step; 8 is added to each.
//
// Scales are F32: one for each output (int8, fp8), or eight for each unit, in the order of units (int4, whose groups of
// 128 inputs are its units).
#pragma once

#include "kernels/element.h"

namespace optserve::kernels {

enum class WeightFormat : uint8_t { kPlain, kInt8, kFp8, kInt4 };

inline constexpr int64_t kOctet = 8;
inline constexpr int64_t kUnitBytes = 512;
__host__ __device__ constexpr int64_t unit_inputs(WeightFormat format) {
  return format == WeightFormat::kInt4 ? 128 : 64;
}
inline constexpr int64_t kBandOctets = 8;  // octets whose units of the same inputs are adjacent
inline constexpr int64_t kBandOutputs = kBandOctets * kOctet;
// The octets that a matrix with `out` outputs needs, and the octets that its packed form has.
__host__ __device__ constexpr int64_t octets_of(int64_t out) { return (out + kOctet - 1) / kOctet; }
__host__ __device__ constexpr int64_t bands_of(int64_t out) { return (out + kBandOutputs - 1) / kBandOutputs; }
// The units of an octet.
__host__ __device__ constexpr int64_t units_of(WeightFormat format, int64_t in) {
  return (in + unit_inputs(format) - 1) / unit_inputs(format);
}
__host__ __device__ constexpr int64_t packed_bytes(WeightFormat format, int64_t out, int64_t in) {
  return bands_of(out) * kBandOctets * units_of(format, in) * kUnitBytes;
}
__host__ __device__ constexpr int64_t packed_scales(WeightFormat format, int64_t out, int64_t in) {
  return bands_of(out) * kBandOutputs * (format == WeightFormat::kInt4 ? units_of(format, in) : 1);
}
// The index of a unit among all units of the matrix; `units` is units_of().
__host__ __device__ constexpr int64_t unit_index(int64_t octet, int64_t unit, int64_t units) {
  return (octet / kBandOctets * units + unit) * kBandOctets + octet % kBandOctets;
}

// A quantised matrix in row-major order, as files hold it (quant/quantise.h): int4 has two inputs in a byte, the first
// one in the lower half, and `in` is a multiple of its groups. Scales: [out], or [out, in / 128] for int4.
struct StoredCodes {
  WeightFormat format = WeightFormat::kInt8;
  int64_t out = 0, in = 0;
  const void* values = nullptr;
  const float* scales = nullptr;
};
// `values` has packed_bytes(), a multiple of 16, and `scales` has packed_scales() floats. Kernels launched later may
// read both before their own wait, since this one does not let them begin early.
cudaError_t pack_quantised(const StoredCodes& stored, void* values, float* scales, cudaStream_t stream);

// Converts some bands of a packed matrix to plain rows: out[rows, in] = value * scale, rounded once.
struct DequantiseArgs {
  WeightFormat format = WeightFormat::kInt8;
  Element element = Element::kF16;
  const void* values = nullptr;   // of the first band
  const float* scales = nullptr;  // the same
  int64_t rows = 0, in = 0;
  void* out = nullptr;
};
cudaError_t dequantise(const DequantiseArgs& args, cudaStream_t stream);

// The row-major codes of a random matrix with one scale, as quant/random_codes.h defines them: element (r, c) is u *
// limit rounded to a code, where u is that of kernels/elementwise.h and the limit the largest value of the format.
struct RandomCodes {
  WeightFormat format = WeightFormat::kInt8;
  uint64_t key = 0;
  int64_t first_row = 0, rows = 0;
  int64_t first_col = 0, cols = 0;
  int64_t whole_cols = 0;
};
cudaError_t fill_random_codes(const RandomCodes& codes, void* out, cudaStream_t stream);
cudaError_t fill(float value, int64_t count, float* out, cudaStream_t stream);

}  // namespace optserve::kernels

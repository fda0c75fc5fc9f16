// Eight floats at a time, in the compiler's own vector type: one source for every instruction set. Sums are formed in a
// fixed order, so results of different instruction sets differ only by fused rounding. Files that include this are
// compiled with -Wno-psabi, since vectors are passed only between inlined functions.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "base/avx2.h"

#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace optserve::simd {

inline constexpr int kLanes = 8;
using Float8 [[gnu::vector_size(32)]] = float;
using Int8x [[gnu::vector_size(32)]] = int32_t;

OPTSERVE_INLINE Float8 load(const float* source) {
  Float8 value;
  std::memcpy(&value, source, sizeof value);
  return value;
}
OPTSERVE_INLINE void store(float* destination, const Float8& value) { std::memcpy(destination, &value, sizeof value); }
OPTSERVE_INLINE Float8 broadcast(float v) { return v - Float8{}; }  // v - 0 is v, also for -0
// Loads eight unsigned 16-bit numbers and widens them.
OPTSERVE_INLINE Int8x load_wide(const uint16_t* source) {
  using Short8 [[gnu::vector_size(16)]] = uint16_t;
  Short8 value;
  std::memcpy(&value, source, sizeof value);
  return __builtin_convertvector(value, Int8x);
}
inline constexpr int32_t kSignBit = INT32_MIN;
// The same for signed 8-bit numbers.
OPTSERVE_INLINE Int8x load_wide(const int8_t* source) {
  using Byte8 [[gnu::vector_size(8)]] = int8_t;
  Byte8 value;
  std::memcpy(&value, source, sizeof value);
  return __builtin_convertvector(value, Int8x);
}
OPTSERVE_INLINE Float8 to_float(const Int8x& v) { return __builtin_convertvector(v, Float8); }
// Loads eight binary16 numbers and widens them exactly; without F16C only if they are finite.
OPTSERVE_INLINE Float8 load_half(const uint16_t* source) {
#if defined(__F16C__)
  __m128i value;
  std::memcpy(&value, source, sizeof value);
  return std::bit_cast<Float8>(_mm256_cvtph_ps(value));
#else
  const Int8x bits = load_wide(source);
  const auto magnitude = std::bit_cast<Float8>((bits & 0x7fff) << 13) * 0x1p112f;  // moves the exponent's bias
  return std::bit_cast<Float8>(std::bit_cast<Int8x>(magnitude) | ((bits & 0x8000) << 16));
#endif
}
OPTSERVE_INLINE Float8 max(const Float8& a, const Float8& b) { return a > b ? a : b; }
OPTSERVE_INLINE float sum(const Float8& v) { return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7])); }
OPTSERVE_INLINE float largest(const Float8& v) {
  float result = v[0];
  for (int lane = 1; lane < kLanes; ++lane) result = v[lane] > result ? v[lane] : result;
  return result;
}

// e^x within 2 units in the last place for x in [-87.3, 88]; below, it gives 0; above, it must not be used. As in
// Cephes' expf: x = n ln 2 + r, a polynomial for e^r, n added to the exponent.
OPTSERVE_INLINE Float8 exp(const Float8& x) {
  constexpr float kLowest = -87.3f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const Float8 clamped = max(x, broadcast(kLowest));
  const Float8 shifted = clamped * 1.44269504088896341f + kRound;
  const Float8 n = shifted - kRound;
  Float8 r = clamped - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  Float8 p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const Int8x exponent = (std::bit_cast<Int8x>(shifted) - std::bit_cast<int32_t>(kRound) + 127) << 23;
  return x < kLowest ? Float8{} : p * std::bit_cast<Float8>(exponent);
}

}  // namespace optserve::simd

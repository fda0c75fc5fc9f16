// The eight-bit float e4m3 (safetensors: F8_E4M3): 1 sign, 4 exponent and 3 fraction bits, bias 7. It has no infinity;
// the codes 0x7f and 0xff are NaN, and the largest value is 448.
#pragma once

#include <bit>
#include <cstdint>

namespace optserve::quant {

inline constexpr float kE4m3Max = 448.0f;

// Exact for every code.
constexpr float e4m3_to_float(uint8_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80u) << 24;
  const uint32_t magnitude = code & 0x7fu;
  if (magnitude == 0x7fu) return std::bit_cast<float>(sign | 0x7fc00000u);
  if (magnitude >= 8) return std::bit_cast<float>(sign | ((magnitude << 20) + (120u << 23)));
  return std::bit_cast<float>(std::bit_cast<uint32_t>(static_cast<float>(magnitude) * 0x1p-9f) | sign);
}

// Rounds to nearest, ties to even; larger magnitudes become 448. `value` must not be NaN. There are no branches, so
// that compilers vectorise loops over it.
constexpr uint8_t float_to_e4m3(float value) {
  const auto bits = std::bit_cast<int32_t>(value);
  const int32_t largest = 0x43e00000;  // 448
  const int32_t wanted = bits & 0x7fffffff;
  const int32_t magnitude = wanted < largest ? wanted : largest;
  const int32_t odd = (magnitude >> 20) & 1;
  const int32_t normal = (magnitude - (120 << 23) + 0x7ffff + odd) >> 20;
  // Below 2^-6 codes are 2^-9 apart (subnormal). Adding 2^14 makes the FPU round to a multiple of that.
  const float shifted = std::bit_cast<float>(magnitude) + 0x1p14f;
  const int32_t subnormal = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(0x1p14f);
  const int32_t is_subnormal = (magnitude - 0x3c800000) >> 31;  // all ones, or zero
  const int32_t code = (subnormal & is_subnormal) | (normal & ~is_subnormal);
  return static_cast<uint8_t>(code | ((bits >> 24) & 0x80));
}

}  // namespace optserve::quant

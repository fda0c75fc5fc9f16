// Element types of stored tensors, and exact conversions between the three floating formats and fp32.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace optserve {

// Values are stable: they may be stored. Append only.
enum class DType : uint8_t {
  kF32 = 0,
  kF16 = 1,   // IEEE 754 binary16
  kBF16 = 2,  // the upper half of a binary32
  kI32 = 3,
  kI8 = 4,
  kU8 = 5,
  kI64 = 6,
  kI16 = 7,
  kF64 = 8,
  kBool = 9,     // one byte, 0 or 1
  kF8E4M3 = 10,  // 1 sign, 4 exponent, 3 fraction bits, no infinity; quant/e4m3.h converts
};

// Bytes of one element.
constexpr size_t dtype_bytes(DType dtype) {
  switch (dtype) {
    case DType::kI64:
    case DType::kF64:
      return 8;
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kF16:
    case DType::kBF16:
    case DType::kI16:
      return 2;
    case DType::kI8:
    case DType::kU8:
    case DType::kBool:
    case DType::kF8E4M3:
      return 1;
  }
  return 0;
}

// Types that convert_to_f32 reads.
constexpr bool is_floating(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16 || dtype == DType::kF64;
}

// The spelling of safetensors: "F16", "BF16", "I8", "BOOL", "F8_E4M3".
std::string_view dtype_name(DType dtype);
std::optional<DType> parse_dtype(std::string_view name);
// The spelling of command lines: a word of kDtypeNames (base/format_names.h).
std::optional<DType> parse_weight_dtype(std::string_view name);

// Exact. Signalling NaNs become quiet ones with the same payload, as with the F16C instructions.
constexpr float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t magnitude = half & 0x7fffu;
  if (magnitude >= 0x7c00u) {
    const uint32_t payload = (magnitude & 0x3ffu) << 13;
    return std::bit_cast<float>(sign | 0x7f800000u | payload | (payload != 0 ? 0x400000u : 0u));
  }
  if (magnitude >= 0x400u) return std::bit_cast<float>(sign | ((magnitude << 13) + (112u << 23)));
  const float value = static_cast<float>(magnitude) * 0x1p-24f;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign);
}

// Round to nearest, ties to even; overflow gives infinity, NaN stays NaN.
constexpr uint16_t float_to_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and above
  if (magnitude < 0x38800000u) {  // below 2^-14: adding 0.5 makes the FPU round at 2^-24, the subnormal spacing
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
  }
  const uint32_t odd = (magnitude >> 13) & 1u;
  return static_cast<uint16_t>(sign | ((magnitude - (112u << 23) + 0xfffu + odd) >> 13));
}

constexpr float bfloat_to_float(uint16_t bfloat) { return std::bit_cast<float>(static_cast<uint32_t>(bfloat) << 16); }

// Round to nearest, ties to even; NaN stays NaN.
constexpr uint16_t float_to_bfloat(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// Bulk conversions of `count` elements. `dtype` must be floating. Source and destination must not overlap and need no
// alignment on the side that is not float.
void convert_to_f32(const void* source, DType dtype, float* destination, size_t count);
void convert_from_f32(const float* source, DType dtype, void* destination, size_t count);

}  // namespace optserve

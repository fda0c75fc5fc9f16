#include "tensor/dtype.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <utility>

#include "base/avx2.h"
#include "base/check.h"
#include "base/format_names.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace optserve {
namespace {

constexpr std::array<std::pair<DType, std::string_view>, 11> kNames = {{{DType::kF32, "F32"},
                                                                        {DType::kF16, "F16"},
                                                                        {DType::kBF16, "BF16"},
                                                                        {DType::kI32, "I32"},
                                                                        {DType::kI8, "I8"},
                                                                        {DType::kU8, "U8"},
                                                                        {DType::kI64, "I64"},
                                                                        {DType::kI16, "I16"},
                                                                        {DType::kF64, "F64"},
                                                                        {DType::kBool, "BOOL"},
                                                                        {DType::kF8E4M3, "F8_E4M3"}}};

template <class T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class T>
void store(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

// Convert whole groups of eight elements with F16C, and return how many elements they have converted.
#if defined(__x86_64__)
OPTSERVE_AVX2 size_t half_to_float_avx2(const std::byte* from, float* to, size_t count) {
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 2 * i));
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(half));
  }
  return i;
}

OPTSERVE_AVX2 size_t float_to_half_avx2(const float* from, std::byte* to, size_t count) {
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 2 * i), half);
  }
  return i;
}
#else
size_t half_to_float_avx2(const std::byte*, float*, size_t) { return 0; }
size_t float_to_half_avx2(const float*, std::byte*, size_t) { return 0; }
#endif

constexpr DType kComputeDtypes[] = {DType::kF32, DType::kF16, DType::kBF16};  // named kDtypeNames
static_assert(std::size(kComputeDtypes) == kDtypeNames.size());

}  // namespace

std::string_view dtype_name(DType dtype) {
  for (const auto& [value, name] : kNames) {
    if (value == dtype) return name;
  }
  return "invalid";
}

std::optional<DType> parse_dtype(std::string_view name) {
  for (const auto& [value, text] : kNames) {
    if (text == name) return value;
  }
  return std::nullopt;
}

std::optional<DType> parse_weight_dtype(std::string_view name) {
  const auto found = std::ranges::find(kDtypeNames, name);
  if (found == kDtypeNames.end()) return std::nullopt;
  return kComputeDtypes[found - kDtypeNames.begin()];
}

void convert_to_f32(const void* source, DType dtype, float* destination, size_t count) {
  if (count == 0) return;
  const auto* from = static_cast<const std::byte*>(source);
  switch (dtype) {
    case DType::kF32:
      std::memcpy(destination, from, count * sizeof(float));
      return;
    case DType::kF16:
      for (size_t i = has_avx2() ? half_to_float_avx2(from, destination, count) : 0; i < count; ++i) {
        destination[i] = half_to_float(load<uint16_t>(from + 2 * i));
      }
      return;
    case DType::kBF16:
      for (size_t i = 0; i < count; ++i) destination[i] = bfloat_to_float(load<uint16_t>(from + 2 * i));
      return;
    case DType::kF64:
      for (size_t i = 0; i < count; ++i) destination[i] = static_cast<float>(load<double>(from + 8 * i));
      return;
    default:
      check_failed("convert_to_f32 of a type that is not floating", std::source_location::current());
  }
}

void convert_from_f32(const float* source, DType dtype, void* destination, size_t count) {
  if (count == 0) return;  // memcpy must not see the null pointers of empty ranges
  auto* to = static_cast<std::byte*>(destination);
  switch (dtype) {
    case DType::kF32:
      std::memcpy(to, source, count * sizeof(float));
      return;
    case DType::kF16:
      for (size_t i = has_avx2() ? float_to_half_avx2(source, to, count) : 0; i < count; ++i) {
        store(to + 2 * i, float_to_half(source[i]));
      }
      return;
    case DType::kBF16:
      for (size_t i = 0; i < count; ++i) store(to + 2 * i, float_to_bfloat(source[i]));
      return;
    case DType::kF64:
      for (size_t i = 0; i < count; ++i) store(to + 8 * i, static_cast<double>(source[i]));
      return;
    default:
      check_failed("convert_from_f32 to a type that is not floating", std::source_location::current());
  }
}

}  // namespace optserve

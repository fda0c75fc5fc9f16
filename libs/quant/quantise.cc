#include "quant/quantise.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/check.h"
#include "quant/e4m3.h"

namespace optserve::quant {
namespace {

constexpr int64_t kInt4Group = 128;
constexpr size_t kLanes = 16;  // independent sums, so that their loop is vectorised

// ScaleChoice::kLeastError tries these scales: the scale of the largest magnitude times 1, 0.98, ... 0.62.
constexpr int kRatios = 20;
constexpr float kRatioStep = 0.02f;

// Functions that are always_inline are compiled twice, into quantise_row_baseline and into quantise_row_avx2.

// The nearest integer, ties to even, for |x| < 2^22: adding 1.5 * 2^23 makes the FPU round to integers, which are then
// the low bits of the sum.
[[gnu::always_inline]] inline int32_t round_to_int(float x) {
  constexpr float kShift = 0x1.8p23f;
  return std::bit_cast<int32_t>(x + kShift) - std::bit_cast<int32_t>(kShift);
}

// The value for weight / scale. It is clamped as an integer, since comparing floats would keep compilers from
// vectorising the loops.
[[gnu::always_inline]] inline int32_t code_of(float exact, int32_t limit) {
  return std::clamp(round_to_int(exact), -limit, limit);
}

// Compares bits as integers, which have the same order as the magnitudes and let the loop be vectorised.
[[gnu::always_inline]] inline float largest_magnitude(const float* row, int64_t count) {
  int32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::bit_cast<int32_t>(row[i]) & 0x7fffffff);
  check(largest < 0x7f800000, "quantise_rows: a weight is NaN or infinite");
  return std::bit_cast<float>(largest);
}

// A scale is never so small that its inverse overflows, nor so large that scale * limit overflows.
[[gnu::always_inline]] inline float scale_of(float largest, float limit) {
  const float scale = std::max(largest / limit, std::numeric_limits<float>::min());
  return scale * limit <= std::numeric_limits<float>::max() ? scale : std::nextafter(scale, 0.0f);
}

[[gnu::always_inline]] inline void round_row(const float* row, int64_t count, float scale, int32_t limit,
                                             int8_t* codes) {
  const float inverse = 1 / scale;
  for (int64_t i = 0; i < count; ++i) codes[i] = static_cast<int8_t>(code_of(row[i] * inverse, limit));
}

// Sum of (weight / scale - value)^2.
[[gnu::always_inline]] inline float squared_error(const float* row, int64_t count, float scale, int32_t limit) {
  const float inverse = 1 / scale;
  std::array<float, kLanes> sums{};
  const auto add = [&](size_t lane, float weight) {
    const float exact = weight * inverse;
    const float error = exact - static_cast<float>(code_of(exact, limit));
    sums[lane] += error * error;
  };
  int64_t i = 0;
  for (; i + static_cast<int64_t>(kLanes) <= count; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) add(lane, row[i + static_cast<int64_t>(lane)]);
  }
  for (; i < count; ++i) add(0, row[i]);
  float total = 0;
  for (const float sum : sums) total += sum;
  return total;
}

[[gnu::always_inline]] inline float least_error_scale(const float* row, int64_t count, int32_t limit) {
  const float widest = scale_of(largest_magnitude(row, count), static_cast<float>(limit));
  float best = widest;
  float least = std::numeric_limits<float>::max();
  for (int step = 0; step < kRatios; ++step) {
    const float ratio = 1 - kRatioStep * static_cast<float>(step);
    const float scale = std::max(widest * ratio, std::numeric_limits<float>::min());
    const float error = squared_error(row, count, scale, limit) * ratio * ratio;
    if (error < least) {
      least = error;
      best = scale;
    }
  }
  return best;
}

[[gnu::always_inline]] inline void quantise_int8(const float* row, int64_t in, ScaleChoice choice, std::byte* values,
                                                 float& scale) {
  scale = choice == ScaleChoice::kLeastError ? least_error_scale(row, in, kInt8Limit)
                                             : scale_of(largest_magnitude(row, in), kInt8Limit);
  round_row(row, in, scale, kInt8Limit, reinterpret_cast<int8_t*>(values));
}

[[gnu::always_inline]] inline void quantise_fp8(const float* row, int64_t in, std::byte* values, float& scale) {
  scale = scale_of(largest_magnitude(row, in), kE4m3Max);
  const float inverse = 1 / scale;
  for (int64_t i = 0; i < in; ++i) values[i] = static_cast<std::byte>(float_to_e4m3(row[i] * inverse));
}

[[gnu::always_inline]] inline void quantise_int4(const float* row, int64_t in, std::byte* values, float* scales) {
  for (int64_t begin = 0; begin < in; begin += kInt4Group) {
    float& scale = *scales++;
    scale = scale_of(largest_magnitude(row + begin, kInt4Group), kInt4Limit);
    std::array<int8_t, kInt4Group> codes;
    round_row(row + begin, kInt4Group, scale, kInt4Limit, codes.data());
    for (size_t i = 0; i < codes.size(); i += 2) {
      *values++ = static_cast<std::byte>((codes[i] & 15) | ((codes[i + 1] & 15) << 4));
    }
  }
}

[[gnu::always_inline]] inline void quantise_row(const Quantisation& how, const float* row, int64_t in,
                                                std::byte* values, float* scales) {
  if (how.format == QuantFormat::kInt8) quantise_int8(row, in, how.scales, values, *scales);
  if (how.format == QuantFormat::kFp8) quantise_fp8(row, in, values, *scales);
  if (how.format == QuantFormat::kInt4) quantise_int4(row, in, values, scales);
}

using QuantiseRow = void (*)(const Quantisation&, const float*, int64_t, std::byte*, float*);

void quantise_row_baseline(const Quantisation& how, const float* row, int64_t in, std::byte* values, float* scales) {
  quantise_row(how, row, in, values, scales);
}

#if defined(__x86_64__)
// The same operations on wider vectors. It must not use FMA, so that the bytes are the same; therefore it is not
// OPTSERVE_AVX2.
__attribute__((target("avx2"))) void quantise_row_avx2(const Quantisation& how, const float* row, int64_t in,
                                                       std::byte* values, float* scales) {
  quantise_row(how, row, in, values, scales);
}

QuantiseRow row_function() { return __builtin_cpu_supports("avx2") ? quantise_row_avx2 : quantise_row_baseline; }
#else
QuantiseRow row_function() { return quantise_row_baseline; }
#endif

void dequantise_int8(const std::byte* values, int64_t count, float scale, float* row) {
  const auto* codes = reinterpret_cast<const int8_t*>(values);
  for (int64_t i = 0; i < count; ++i) row[i] = static_cast<float>(codes[i]) * scale;
}

constexpr std::array<float, 256> kE4m3Values = [] {
  std::array<float, 256> table{};
  for (size_t code = 0; code < table.size(); ++code) table[code] = e4m3_to_float(static_cast<uint8_t>(code));
  return table;
}();

void dequantise_fp8(const std::byte* values, int64_t count, float scale, float* row) {
  for (int64_t i = 0; i < count; ++i) row[i] = kE4m3Values[static_cast<uint8_t>(values[i])] * scale;
}

void dequantise_int4(const std::byte* values, int64_t count, const float* scales, float* row) {
  for (int64_t begin = 0; begin < count; begin += kInt4Group) {
    const float scale = *scales++;
    for (int64_t i = begin; i < begin + kInt4Group; i += 2) {
      const auto pair = static_cast<uint8_t>(values[i / 2]);
      row[i] = static_cast<float>(static_cast<int8_t>(pair << 4) >> 4) * scale;
      row[i + 1] = static_cast<float>(static_cast<int8_t>(pair) >> 4) * scale;
    }
  }
}

// The number of rows of the three spans, which must be the same.
size_t check_rows(QuantFormat format, int64_t in, size_t weights, size_t values, size_t scales) {
  check(!is_plain(format), "quantised rows: a plain format");
  check(in > 0 && in % input_multiple(format) == 0, "quantised rows: inputs are no whole groups");
  const size_t rows = weights / static_cast<size_t>(in);
  check_eq(weights, rows * static_cast<size_t>(in), "quantised rows: weights of whole rows");
  check_eq(values, rows * static_cast<size_t>(elements_per_row(format, in)), "quantised rows: values");
  check_eq(scales, rows * static_cast<size_t>(scales_per_row(format, in)), "quantised rows: scales");
  return rows;
}

}  // namespace

void quantise_rows(const Quantisation& how, std::span<const float> rows, int64_t in, std::span<std::byte> values,
                   std::span<float> scales) {
  const size_t count = check_rows(how.format, in, rows.size(), values.size(), scales.size());
  static const QuantiseRow quantise = row_function();
  for (size_t r = 0; r < count; ++r) {
    quantise(how, rows.data() + r * static_cast<size_t>(in), in,
             values.data() + r * static_cast<size_t>(elements_per_row(how.format, in)),
             scales.data() + r * static_cast<size_t>(scales_per_row(how.format, in)));
  }
}

void dequantise_rows(QuantFormat format, std::span<const std::byte> values, std::span<const float> scales, int64_t in,
                     std::span<float> rows) {
  const size_t count = check_rows(format, in, rows.size(), values.size(), scales.size());
  for (size_t r = 0; r < count; ++r) {
    float* row = rows.data() + r * static_cast<size_t>(in);
    const std::byte* from = values.data() + r * static_cast<size_t>(elements_per_row(format, in));
    const float* scale = scales.data() + r * static_cast<size_t>(scales_per_row(format, in));
    if (format == QuantFormat::kInt8) dequantise_int8(from, in, *scale, row);
    if (format == QuantFormat::kFp8) dequantise_fp8(from, in, *scale, row);
    if (format == QuantFormat::kInt4) dequantise_int4(from, in, scale, row);
  }
}

}  // namespace optserve::quant

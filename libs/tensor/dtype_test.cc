#include "tensor/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace optserve {
namespace dtype_test {

uint32_t bits_of(float value) { return std::bit_cast<uint32_t>(value); }

// The value of a half by its definition, in double.
double half_by_definition(uint16_t half) {
  const int exponent = (half >> 10) & 0x1f;
  const double fraction = (half & 0x3ff) / 1024.0;
  const double magnitude = exponent == 0 ? std::ldexp(fraction, -14) : std::ldexp(1.0 + fraction, exponent - 15);
  return (half & 0x8000) != 0 ? -magnitude : magnitude;
}

TEST(DType, NamesRoundTrip) {
  for (int i = 0; i <= 10; ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(parse_dtype(dtype_name(dtype)), dtype);
    EXPECT_GT(dtype_bytes(dtype), 0u);
  }
  EXPECT_EQ(dtype_name(DType::kBF16), "BF16");
  EXPECT_FALSE(parse_dtype("f16").has_value());
  EXPECT_FALSE(parse_dtype("").has_value());
  EXPECT_EQ(parse_weight_dtype("bf16"), DType::kBF16);
  EXPECT_FALSE(parse_weight_dtype("int8").has_value());
}

TEST(Half, EveryFiniteValueMeansWhatTheDefinitionSays) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const auto half = static_cast<uint16_t>(h);
    if ((half & 0x7c00) == 0x7c00) continue;
    ASSERT_EQ(static_cast<double>(half_to_float(half)), half_by_definition(half)) << h;
    ASSERT_EQ(float_to_half(half_to_float(half)), half) << h;
  }
}

TEST(Half, InfinityAndNanStay) {
  EXPECT_EQ(half_to_float(0x7c00), std::numeric_limits<float>::infinity());
  EXPECT_EQ(half_to_float(0xfc00), -std::numeric_limits<float>::infinity());
  EXPECT_EQ(float_to_half(std::numeric_limits<float>::infinity()), 0x7c00);
  EXPECT_EQ(float_to_half(1e6f), 0x7c00);
  EXPECT_EQ(float_to_half(-1e6f), 0xfc00);
  for (uint32_t payload : {1u, 0x1fffu, 0x2000u, 0x3fffffu, 0x7fffffu}) {
    const float nan = std::bit_cast<float>(0x7f800000u | payload);
    EXPECT_EQ(float_to_half(nan) & 0x7c00, 0x7c00);
    EXPECT_NE(float_to_half(nan) & 0x3ff, 0) << payload;
    EXPECT_TRUE(std::isnan(bfloat_to_float(float_to_bfloat(nan)))) << payload;
  }
}

// Between two neighbouring halves the middle goes to the even one, everything else to the nearer.
TEST(Half, RoundsToNearestEven) {
  for (uint32_t h = 0; h < 0x7bff; ++h) {
    const float low = half_to_float(static_cast<uint16_t>(h));
    const float high = half_to_float(static_cast<uint16_t>(h + 1));
    const float middle = 0.5f * (low + high);  // exact: a half has 11 bits, the middle needs 12
    ASSERT_EQ(float_to_half(middle), (h & 1) == 0 ? h : h + 1) << h;
    ASSERT_EQ(float_to_half(std::nextafter(middle, 0.0f)), h) << h;
    ASSERT_EQ(float_to_half(std::nextafter(middle, 1e9f)), h + 1) << h;
  }
  EXPECT_EQ(float_to_half(65519.996f), 0x7bff);
  EXPECT_EQ(float_to_half(65520.0f), 0x7c00);
  EXPECT_EQ(float_to_half(-0.0f), 0x8000);
}

TEST(BFloat, RoundsToNearestEven) {
  for (uint32_t b = 0; b < 0x7f80; ++b) {
    const uint32_t low = b << 16;
    ASSERT_EQ(float_to_bfloat(std::bit_cast<float>(low)), b);
    ASSERT_EQ(float_to_bfloat(std::bit_cast<float>(low | 0x7fffu)), b);
    ASSERT_EQ(float_to_bfloat(std::bit_cast<float>(low | 0x8000u)), (b & 1) == 0 ? b : b + 1);
    ASSERT_EQ(float_to_bfloat(std::bit_cast<float>(low | 0x8001u)), b + 1);
  }
}

TEST(Bulk, EqualsTheScalarConversionBitForBit) {
  std::vector<uint16_t> halves;
  for (uint32_t h = 0; h < 0x10000; ++h) halves.push_back(static_cast<uint16_t>(h));
  halves.push_back(1);  // a count that is no multiple of the vector width
  std::vector<float> floats(halves.size());
  convert_to_f32(halves.data(), DType::kF16, floats.data(), halves.size());
  for (size_t i = 0; i < halves.size(); ++i) ASSERT_EQ(bits_of(floats[i]), bits_of(half_to_float(halves[i]))) << i;
  convert_to_f32(halves.data(), DType::kBF16, floats.data(), halves.size());
  for (size_t i = 0; i < halves.size(); ++i) ASSERT_EQ(bits_of(floats[i]), bits_of(bfloat_to_float(halves[i]))) << i;

  uint32_t state = 12345;
  for (float& value : floats) {
    state = state * 1664525u + 1013904223u;
    value = std::bit_cast<float>(state);
  }
  std::vector<uint16_t> out(floats.size());
  convert_from_f32(floats.data(), DType::kF16, out.data(), floats.size());
  for (size_t i = 0; i < floats.size(); ++i) ASSERT_EQ(out[i], float_to_half(floats[i])) << bits_of(floats[i]);
  convert_from_f32(floats.data(), DType::kBF16, out.data(), floats.size());
  for (size_t i = 0; i < floats.size(); ++i) ASSERT_EQ(out[i], float_to_bfloat(floats[i])) << bits_of(floats[i]);
}

TEST(Bulk, UnalignedSourceAndDouble) {
  std::vector<std::byte> raw(1 + 3 * 8);
  const double values[] = {1.5, -2.0, 1e300};
  std::memcpy(raw.data() + 1, values, sizeof values);
  float out[3];
  convert_to_f32(raw.data() + 1, DType::kF64, out, 3);
  EXPECT_EQ(out[0], 1.5f);
  EXPECT_EQ(out[1], -2.0f);
  EXPECT_TRUE(std::isinf(out[2]));
}

}  // namespace dtype_test
}  // namespace optserve

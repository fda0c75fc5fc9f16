#include "quant/e4m3.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace optserve::quant {
namespace e4m3_test {

// The value of a code by the definition of the format, in double.
double by_definition(uint8_t code) {
  const int exponent = (code >> 3) & 15;
  const double fraction = (code & 7) / 8.0;
  const double magnitude = exponent == 0 ? std::ldexp(fraction, -6) : std::ldexp(1.0 + fraction, exponent - 7);
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}

bool is_nan_code(int code) { return (code & 0x7f) == 0x7f; }

// The nearest code, found by comparing with every code; a tie goes to the even one.
uint8_t nearest_by_search(float value) {
  const double magnitude = std::fabs(static_cast<double>(value));
  int best = 0;
  for (int code = 1; code < 0x7f; ++code) {
    const double here = std::fabs(by_definition(static_cast<uint8_t>(code)) - magnitude);
    const double there = std::fabs(by_definition(static_cast<uint8_t>(best)) - magnitude);
    if (here < there || (here == there && code % 2 == 0)) best = code;
  }
  return static_cast<uint8_t>(best | (std::signbit(value) ? 0x80 : 0));
}

TEST(E4m3, EveryCodeMeansWhatTheDefinitionSays) {
  for (int code = 0; code < 256; ++code) {
    const float value = e4m3_to_float(static_cast<uint8_t>(code));
    if (is_nan_code(code)) {
      EXPECT_TRUE(std::isnan(value)) << code;
      continue;
    }
    EXPECT_EQ(static_cast<double>(value), by_definition(static_cast<uint8_t>(code))) << code;
    EXPECT_EQ(std::signbit(value), code >= 0x80) << code;
    EXPECT_EQ(float_to_e4m3(value), code) << value;
  }
  EXPECT_EQ(e4m3_to_float(0x7e), kE4m3Max);
}

TEST(E4m3, MidpointsGoToTheEvenCodeAndTheirNeighboursToTheNearest) {
  for (int code = 0; code < 0x7e; ++code) {
    const double low = by_definition(static_cast<uint8_t>(code));
    const auto middle = static_cast<float>((low + by_definition(static_cast<uint8_t>(code + 1))) / 2);
    const int even = code % 2 == 0 ? code : code + 1;
    EXPECT_EQ(float_to_e4m3(middle), even) << middle;
    EXPECT_EQ(float_to_e4m3(-middle), even | 0x80) << middle;
    EXPECT_EQ(float_to_e4m3(std::nextafter(middle, 0.0f)), code) << middle;
    EXPECT_EQ(float_to_e4m3(std::nextafter(middle, 1000.0f)), code + 1) << middle;
  }
}

TEST(E4m3, SaturatesAndRoundsTheSmallestToZero) {
  for (const float large :
       {448.0f, 464.0f, 465.0f, 1e30f, std::numeric_limits<float>::max(), std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(float_to_e4m3(large), 0x7e) << large;
    EXPECT_EQ(float_to_e4m3(-large), 0xfe) << large;
  }
  for (const float small : {0.0f, std::numeric_limits<float>::denorm_min(), 1e-20f, 0x1p-10f}) {
    EXPECT_EQ(float_to_e4m3(small), 0) << small;
    EXPECT_EQ(float_to_e4m3(-small), 0x80) << small;
  }
  EXPECT_EQ(float_to_e4m3(0x1.8p-10f), 1);
}

TEST(E4m3, RandomValuesGoToTheNearestCode) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int i = 0; i < 20000; ++i) {
    const float value =
        std::ldexp(std::uniform_real_distribution<float>(-1, 1)(random), static_cast<int>(random() % 26) - 14);
    ASSERT_EQ(float_to_e4m3(value), nearest_by_search(value)) << value;
  }
}

}  // namespace e4m3_test
}  // namespace optserve::quant

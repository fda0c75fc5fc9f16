#include "quant/quantise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "quant/e4m3.h"

namespace optserve::quant {
namespace quantise_test {

constexpr float kSmallest = std::numeric_limits<float>::min();
constexpr float kSlack = 1.0f + 1e-5f;  // for the rounding of products in fp32

const Quantisation kInt8{QuantFormat::kInt8, ScaleChoice::kMax};
const Quantisation kInt8Mse{QuantFormat::kInt8, ScaleChoice::kLeastError};
const Quantisation kFp8{QuantFormat::kFp8, ScaleChoice::kMax};
const Quantisation kInt4{QuantFormat::kInt4, ScaleChoice::kMax};
const Quantisation kAll[] = {kInt8, kInt8Mse, kFp8, kInt4};

struct Quantised {
  std::vector<std::byte> values;
  std::vector<float> scales;
};

Quantised quantise(const Quantisation& how, const std::vector<float>& rows, int64_t in) {
  const auto count = static_cast<int64_t>(rows.size()) / in;
  Quantised out{std::vector<std::byte>(static_cast<size_t>(count * elements_per_row(how.format, in))),
                std::vector<float>(static_cast<size_t>(count * scales_per_row(how.format, in)))};
  quantise_rows(how, rows, in, out.values, out.scales);
  return out;
}

std::vector<float> dequantise(const Quantisation& how, const Quantised& from, int64_t in) {
  const auto rows = static_cast<int64_t>(from.values.size()) / elements_per_row(how.format, in);
  std::vector<float> out(static_cast<size_t>(rows * in));
  dequantise_rows(how.format, from.values, from.scales, in, out);
  return out;
}

// The value of weight `i` of a single row, as the format is described.
float value_of(QuantFormat format, const std::vector<std::byte>& values, size_t i) {
  if (format == QuantFormat::kInt8) return static_cast<float>(static_cast<int8_t>(values[i]));
  if (format == QuantFormat::kFp8) return e4m3_to_float(static_cast<uint8_t>(values[i]));
  const int nibble = (static_cast<int>(values[i / 2]) >> (i % 2 == 0 ? 0 : 4)) & 15;
  return static_cast<float>(nibble < 8 ? nibble : nibble - 16);
}

float limit_of(QuantFormat format) {
  return format == QuantFormat::kFp8 ? kE4m3Max : format == QuantFormat::kInt8 ? 127.0f : 7.0f;
}

size_t group_of(QuantFormat format, int64_t in) { return static_cast<size_t>(in / scales_per_row(format, in)); }

class Quantise : public ::testing::Test {
 protected:
  // Weights from a normal distribution of random width, with some outliers and some zeros.
  std::vector<float> random_row(int64_t in) {
    std::normal_distribution<float> normal(0, std::ldexp(1.0f, static_cast<int>(random_() % 40) - 20));
    std::vector<float> row(static_cast<size_t>(in));
    for (float& weight : row) {
      weight = normal(random_);
      if (random_() % 50 == 0) weight *= 20;
      if (random_() % 50 == 0) weight = 0;
    }
    return row;
  }
  // A number of inputs that the format allows, odd if possible.
  int64_t random_inputs(QuantFormat format) {
    return input_multiple(format) * (1 + static_cast<int64_t>(random_() % (format == QuantFormat::kInt4 ? 5 : 700)));
  }

  unsigned seed_ = std::random_device{}();
  std::mt19937 random_{seed_};
  ::testing::ScopedTrace trace_{__FILE__, __LINE__, "seed " + std::to_string(seed_)};
};

TEST_F(Quantise, NoWeightIsFurtherFromItsValueThanTheFormatSays) {
  for (int round = 0; round < 300; ++round) {
    for (const Quantisation& how : {kInt8, kFp8, kInt4}) {
      const int64_t in = random_inputs(how.format);
      const std::vector<float> row = random_row(in);
      const Quantised stored = quantise(how, row, in);
      const std::vector<float> back = dequantise(how, stored, in);
      for (size_t i = 0; i < row.size(); ++i) {
        const float scale = stored.scales[i / group_of(how.format, in)];
        const float error = std::fabs(row[i] - back[i]);
        // e4m3 has a step of 1/8 of a value's power of two, and 2^-9 below 2^-6.
        const float step = how.format == QuantFormat::kFp8 ? std::max(std::fabs(row[i]) / 8, scale * 0x1p-9f) : scale;
        ASSERT_LE(error, step / 2 * kSlack) << quantisation_name(how) << " " << row[i] << " scale " << scale;
        ASSERT_EQ(back[i], value_of(how.format, stored.values, i) * scale);
      }
    }
  }
}

TEST_F(Quantise, TheLargestMagnitudeOfARowOrGroupIsTheLargestValue) {
  for (const Quantisation& how : {kInt8, kFp8, kInt4}) {
    const int64_t in = 256;
    const std::vector<float> row = random_row(in);
    const Quantised stored = quantise(how, row, in);
    const size_t group = group_of(how.format, in);
    for (size_t begin = 0; begin < row.size(); begin += group) {
      float largest_weight = 0, largest_value = 0;
      for (size_t i = begin; i < begin + group; ++i) {
        largest_weight = std::max(largest_weight, std::fabs(row[i]));
        largest_value = std::max(largest_value, std::fabs(value_of(how.format, stored.values, i)));
      }
      EXPECT_EQ(largest_value, limit_of(how.format)) << quantisation_name(how);
      EXPECT_EQ(stored.scales[begin / group], largest_weight / limit_of(how.format)) << quantisation_name(how);
    }
  }
}

TEST_F(Quantise, WhatIsRepresentableStaysAsItIs) {
  for (int round = 0; round < 200; ++round) {
    for (const Quantisation& how : {kInt8, kFp8, kInt4}) {
      const int64_t in = random_inputs(how.format);
      const Quantised once = quantise(how, random_row(in), in);
      const std::vector<float> weights = dequantise(how, once, in);
      const Quantised twice = quantise(how, weights, in);
      ASSERT_EQ(twice.values, once.values) << quantisation_name(how);
      for (size_t i = 0; i < once.scales.size(); ++i) {
        ASSERT_NEAR(twice.scales[i], once.scales[i], once.scales[i] * 1e-6f) << quantisation_name(how);
      }
    }
  }
}

TEST_F(Quantise, LeastErrorIsNeverWorseAndBetterWhereOneWeightIsFarOut) {
  int better = 0;
  constexpr int kRounds = 30;
  for (int round = 0; round < kRounds; ++round) {
    const int64_t in = 20000 + static_cast<int64_t>(random_() % 1000);
    std::vector<float> row(static_cast<size_t>(in));
    std::normal_distribution<float> normal(0, 0.02f);
    for (float& weight : row) weight = normal(random_);
    row[0] = 0.1f;
    const auto error_of = [&](const Quantisation& how) {
      const std::vector<float> back = dequantise(how, quantise(how, row, in), in);
      double sum = 0;
      for (size_t i = 0; i < row.size(); ++i) sum += std::pow(static_cast<double>(row[i]) - back[i], 2);
      return sum;
    };
    const double plain = error_of(kInt8), least = error_of(kInt8Mse);
    ASSERT_LE(least, plain * 1.0001);
    better += least < plain * 0.999 ? 1 : 0;
  }
  EXPECT_GT(better, kRounds * 9 / 10);
}

TEST_F(Quantise, LeastErrorFindsTheScaleOfAnExhaustiveSearch) {
  // With one outlier and many small weights, the smallest error needs clipping. A search in double checks how much.
  std::vector<float> row(20000);
  std::normal_distribution<float> normal(0, 1);
  for (float& weight : row) weight = normal(random_);
  row[7] = 5;
  const auto in = static_cast<int64_t>(row.size());
  const float widest = quantise(kInt8, row, in).scales[0];
  double least = 1e300;
  for (int step = 0; step < 20; ++step) {
    const double scale = static_cast<double>(widest) * (1 - 0.02 * step);
    double sum = 0;
    for (const float weight : row) {
      const double exact = weight / scale;
      sum += std::pow((exact - std::clamp(std::nearbyint(exact), -127.0, 127.0)) * scale, 2);
    }
    least = std::min(least, sum);
  }
  const Quantised stored = quantise(kInt8Mse, row, in);
  const std::vector<float> back = dequantise(kInt8Mse, stored, in);
  double found = 0;
  for (size_t i = 0; i < row.size(); ++i) found += std::pow(static_cast<double>(row[i]) - back[i], 2);
  EXPECT_NEAR(found, least, least * 1e-3);
  EXPECT_LT(stored.scales[0], widest);
}

TEST_F(Quantise, RowsDoNotKnowEachOther) {
  for (const Quantisation& how : kAll) {
    const int64_t in = 384;
    std::vector<float> rows;
    Quantised apart;
    for (int r = 0; r < 5; ++r) {
      const std::vector<float> row = random_row(in);
      rows.insert(rows.end(), row.begin(), row.end());
      const Quantised one = quantise(how, row, in);
      apart.values.insert(apart.values.end(), one.values.begin(), one.values.end());
      apart.scales.insert(apart.scales.end(), one.scales.begin(), one.scales.end());
    }
    const Quantised together = quantise(how, rows, in);
    EXPECT_EQ(together.values, apart.values) << quantisation_name(how);
    EXPECT_EQ(together.scales, apart.scales) << quantisation_name(how);
    EXPECT_TRUE(quantise(how, {}, in).values.empty());
  }
}

TEST_F(Quantise, ZerosComeBackAsZeros) {
  for (const Quantisation& how : kAll) {
    std::vector<float> row(256, 0.0f);
    row[5] = -0.0f;
    const Quantised stored = quantise(how, row, 256);
    for (const float scale : stored.scales) EXPECT_GE(scale, kSmallest);
    for (const float weight : dequantise(how, stored, 256)) EXPECT_EQ(weight, 0.0f) << quantisation_name(how);
  }
}

TEST_F(Quantise, DenormalsGoToTheNearestMultipleOfTheSmallestScale) {
  for (const Quantisation& how : kAll) {
    std::vector<float> row(128, std::numeric_limits<float>::denorm_min());
    row[0] = kSmallest / 3;
    row[1] = -kSmallest / 8;
    const Quantised stored = quantise(how, row, 128);
    EXPECT_EQ(stored.scales[0], kSmallest) << quantisation_name(how);
    const std::vector<float> back = dequantise(how, stored, 128);
    for (size_t i = 0; i < row.size(); ++i) {
      EXPECT_TRUE(std::isfinite(back[i]));
      EXPECT_LE(std::fabs(back[i] - row[i]), kSmallest / 2) << quantisation_name(how);
    }
  }
}

TEST_F(Quantise, TheLargestFloatsComeBackFinite) {
  for (const Quantisation& how : kAll) {
    std::vector<float> row(128, 1.0f);
    row[0] = std::numeric_limits<float>::max();
    row[1] = std::numeric_limits<float>::lowest();
    const std::vector<float> back = dequantise(how, quantise(how, row, 128), 128);
    for (const float weight : back) EXPECT_TRUE(std::isfinite(weight)) << quantisation_name(how) << " " << weight;
    EXPECT_NEAR(back[0] / row[0], 1, 1e-5) << quantisation_name(how);
    EXPECT_EQ(back[1], -back[0]);
    EXPECT_EQ(back[2], 0);
  }
}

TEST_F(Quantise, Int4PacksTheFirstOfTwoInputsIntoTheLowerHalf) {
  std::vector<float> row(128, 0.0f);
  row[0] = 7, row[1] = -3, row[2] = -7, row[3] = 1;
  const Quantised stored = quantise(kInt4, row, 128);
  EXPECT_EQ(stored.scales, std::vector<float>{1.0f});
  EXPECT_EQ(stored.values[0], std::byte{0xd7});
  EXPECT_EQ(stored.values[1], std::byte{0x19});
  EXPECT_EQ(stored.values[2], std::byte{0});
}

// Files may contain codes that quantise_rows() never writes; they are read as they are.
TEST_F(Quantise, EveryByteHasAMeaning) {
  std::vector<std::byte> bytes(256);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i);
  for (const QuantFormat format : {QuantFormat::kInt8, QuantFormat::kFp8, QuantFormat::kInt4}) {
    const int64_t in = 256 * info(format).packed;
    std::vector<float> row(static_cast<size_t>(in));
    const std::vector<float> scales(static_cast<size_t>(scales_per_row(format, in)), 0.5f);
    dequantise_rows(format, bytes, scales, in, row);
    for (size_t i = 0; i < row.size(); ++i) {
      const float expected = value_of(format, bytes, i) * 0.5f;
      if (std::isnan(expected)) {
        EXPECT_TRUE(std::isnan(row[i])) << i;
      } else {
        EXPECT_EQ(row[i], expected) << i;
      }
    }
  }
}

TEST_F(Quantise, AbortsOnWhatIsNotFiniteAndOnPartsOfGroups) {
  for (const Quantisation& how : kAll) {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
      std::vector<float> row(128, 1.0f);
      row[127] = bad;
      EXPECT_DEATH(quantise(how, row, 128), "NaN or infinite");
    }
  }
  EXPECT_DEATH(quantise(kInt4, std::vector<float>(64), 64), "no whole groups");
  EXPECT_DEATH(quantise(kInt8, std::vector<float>(65), 64), "whole rows");
}

}  // namespace quantise_test
}  // namespace optserve::quant

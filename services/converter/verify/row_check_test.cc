// Rounded rows pass in every format, and each thing that rounding does not do is found and named.
#include "converter/verify/row_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "quant/quantise.h"

namespace optserve::converter {
namespace row_check_test {

using ::testing::HasSubstr;

constexpr int64_t kColumns = 256;

std::vector<float> random_row(unsigned seed, float reach = 0.05f) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, reach);
  std::vector<float> row(kColumns);
  for (float& weight : row) weight = normal(random);
  return row;
}

struct Stored {
  std::vector<std::byte> values;
  std::vector<float> scales;
};

Stored store(const quant::Quantisation& how, std::vector<float> row, DType dtype) {
  std::vector<std::byte> rounded(row.size() * dtype_bytes(dtype));
  convert_from_f32(row.data(), dtype, rounded.data(), row.size());
  convert_to_f32(rounded.data(), dtype, row.data(), row.size());
  Stored stored{std::vector<std::byte>(static_cast<size_t>(quant::elements_per_row(how.format, kColumns))),
                std::vector<float>(static_cast<size_t>(quant::scales_per_row(how.format, kColumns)))};
  quant::quantise_rows(how, row, kColumns, stored.values, stored.scales);
  return stored;
}

RowFindings findings(const StoredAs& as, const std::vector<float>& row, const Stored& stored) {
  RowCheck check(as);
  check.begin_row(3, row);
  check.compare(0, stored.values, stored.scales);
  return check.findings();
}

class RowCheckOf : public ::testing::TestWithParam<const char*> {
 protected:
  const quant::Quantisation how_ = *quant::find_quantisation(GetParam());
  const StoredAs as_{DType::kF16, how_};
};

TEST_P(RowCheckOf, RoundedRowsPassAndUseAllThatRoundingMayDo) {
  double worst = 0;
  for (unsigned seed = 0; seed < 200; ++seed) {
    std::vector<float> row = random_row(seed, seed % 3 == 0 ? 1e-3f : 0.5f);
    if (seed % 5 == 0) row[7] *= 20;  // an outlier
    const RowFindings found = findings(as_, row, store(how_, row, DType::kF16));
    EXPECT_EQ(found.wrong, 0u) << "seed " << seed << ": " << found.first_wrong;
    EXPECT_EQ(found.weights, static_cast<uint64_t>(kColumns));
    EXPECT_GT(found.error_squares, 0);
    worst = std::max(worst, found.worst);
  }
  EXPECT_GT(worst, 0.95);
  EXPECT_LE(worst, 1);
}

TEST_P(RowCheckOf, RowsOfZerosPass) {
  const std::vector<float> zeros(kColumns, 0.0f);
  const RowFindings found = findings(as_, zeros, store(how_, zeros, DType::kF16));
  EXPECT_EQ(found.wrong, 0u) << found.first_wrong;
  EXPECT_EQ(found.error_squares, 0);
}

// Where rounding cannot tell two neighbours apart, at a tie, either is right.
TEST_P(RowCheckOf, NeighbouringCodesAreFound) {
  const std::vector<float> row = random_row(1);
  const Stored good = store(how_, row, DType::kF16);
  size_t missed = 0;
  for (size_t i = 0; i < good.values.size(); ++i) {
    Stored bad = good;
    bad.values[i] ^= std::byte{1};
    const RowFindings found = findings(as_, row, bad);
    missed += found.wrong == 0;
    EXPECT_TRUE(found.wrong == 0 || found.first_wrong.starts_with("row 3, column ")) << found.first_wrong;
  }
  EXPECT_LE(missed, good.values.size() / 20);
}

TEST_P(RowCheckOf, OtherScalesAreFoundAndNamed) {
  const std::vector<float> row = random_row(2);
  for (const float factor : {2.0f, 1.01f, 0.5f, -1.0f, 0.0f, HUGE_VALF}) {
    Stored bad = store(how_, row, DType::kF16);
    bad.scales.back() *= factor;
    const RowFindings found = findings(as_, row, bad);
    EXPECT_GT(found.wrong, 0u) << factor;
  }
  Stored bad = store(how_, row, DType::kF16);
  bad.scales[0] *= 2;
  EXPECT_THAT(findings(as_, row, bad).first_wrong, HasSubstr("its scale is "));
}

TEST_P(RowCheckOf, RowsOfAnotherTensorAreFound) {
  const RowFindings found = findings(as_, random_row(4), store(how_, random_row(5), DType::kF16));
  EXPECT_GT(found.wrong, static_cast<uint64_t>(kColumns / 2));
}

INSTANTIATE_TEST_SUITE_P(Formats, RowCheckOf, ::testing::Values("int8", "int8-mse", "fp8", "int4"),
                         [](const auto& format) {
                           return std::string(format.param) == "int8-mse" ? "int8mse" : format.param;
                         });

// Scales of least squared error cut off the largest weights; those of the largest weight never do.
TEST(RowCheck, OnlyScalesOfLeastErrorMaySaturate) {
  const quant::Quantisation mse = *quant::find_quantisation("int8-mse"), widest = *quant::find_quantisation("int8");
  std::vector<float> row(kColumns, 0.001f);
  row[9] = 1;
  Stored stored{std::vector<std::byte>(kColumns), {0.7f / quant::kInt8Limit}};
  for (size_t i = 0; i < row.size(); ++i) {
    stored.values[i] = static_cast<std::byte>(std::min(127.0f, std::nearbyint(row[i] / stored.scales[0])));
  }
  EXPECT_EQ(findings({DType::kF32, mse}, row, stored).wrong, 0u);
  EXPECT_GT(findings({DType::kF32, widest}, row, stored).wrong, 0u);
  stored.scales[0] = 0.5f / quant::kInt8Limit;  // below 0.62
  EXPECT_GT(findings({DType::kF32, mse}, row, stored).wrong, 0u);
}

TEST(RowCheck, PlainRowsAreComparedToTheBit) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    std::vector<float> row = random_row(6);
    row[5] = NAN;
    row[6] = HUGE_VALF;
    Stored stored{std::vector<std::byte>(row.size() * dtype_bytes(dtype)), {}};
    convert_from_f32(row.data(), dtype, stored.values.data(), row.size());
    const RowFindings found = findings({dtype, {}}, row, stored);
    EXPECT_EQ(found.wrong, 0u) << found.first_wrong;
    EXPECT_EQ(found.worst, 0);
    EXPECT_EQ(found.error_squares > 0, dtype != DType::kF32) << "rounding to fewer bits is an error too";
    for (const size_t column : {size_t{0}, size_t{6}, row.size() - 1}) {
      Stored bad = stored;
      bad.values[column * dtype_bytes(dtype) + 1] ^= std::byte{0x40};
      const RowFindings flipped = findings({dtype, {}}, row, bad);
      EXPECT_EQ(flipped.wrong, 1u);
      EXPECT_THAT(flipped.first_wrong, HasSubstr("column " + std::to_string(column) + ": "));
    }
  }
}

// A shard of split columns holds its part of the row, and the scale of the whole of it.
TEST(RowCheck, ColumnsOfAShardAreThoseFromItsFirstOn) {
  const std::vector<float> row = random_row(8);
  const quant::Quantisation how = *quant::find_quantisation("int8");
  const Stored whole = store(how, row, DType::kF16);
  const auto half = static_cast<size_t>(kColumns / 2);
  RowCheck check({DType::kF16, how});
  check.begin_row(0, row);
  check.compare(kColumns / 2, std::span(whole.values).subspan(half), whole.scales);
  EXPECT_EQ(check.findings().wrong, 0u) << check.findings().first_wrong;
  check.compare(0, std::span(whole.values).subspan(half), whole.scales);
  EXPECT_GT(check.findings().wrong, 0u);
}

}  // namespace row_check_test
}  // namespace optserve::converter

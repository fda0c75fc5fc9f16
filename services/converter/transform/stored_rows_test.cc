#include "converter/transform/stored_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "quant/quantise.h"

namespace optserve::converter {
namespace stored_rows_test {

using model_spec::TensorSpec;
using ::testing::ElementsAreArray;
using ::testing::IsEmpty;

constexpr int64_t kRows = 5;
constexpr int64_t kCols = 256;

std::vector<std::byte> in_type(std::span<const float> values, DType dtype) {
  std::vector<std::byte> bytes(values.size() * dtype_bytes(dtype));
  convert_from_f32(values.data(), dtype, bytes.data(), values.size());
  return bytes;
}

// Every tensor holds the same weights, as `dtype`.
class OneMatrix final : public WeightRows {
 public:
  OneMatrix(std::vector<float> weights, DType dtype) : dtype_(dtype), bytes_(in_type(weights, dtype)) {}
  const model_spec::OptConfig& config() const override { return config_; }
  DType dtype(const TensorSpec&) const override { return dtype_; }
  void read_rows(const TensorSpec&, int64_t row, int64_t count, std::span<std::byte> out) const override {
    const size_t row_bytes = bytes_.size() / kRows;
    std::ranges::copy(
        std::span(bytes_).subspan(static_cast<size_t>(row) * row_bytes, static_cast<size_t>(count) * row_bytes),
        out.begin());
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  model_spec::OptConfig config_;
  DType dtype_;
  std::vector<std::byte> bytes_;
};

std::vector<float> random_weights() {
  std::mt19937_64 random(7);
  std::normal_distribution<float> normal(0, 0.05f);
  std::vector<float> weights(kRows * kCols);
  std::ranges::generate(weights, [&] { return normal(random); });
  return weights;
}

TensorSpec matrix() {
  TensorSpec spec;
  spec.name = "layers.0.ffn.up.weight";
  spec.rows = kRows;
  spec.cols = kCols;
  spec.is_matrix = true;
  spec.quantisable = true;
  return spec;
}

TEST(StoredRows, AreTheSameBytesWhereTheTypeStays) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const OneMatrix source(random_weights(), dtype);
    const checkpoint::ShardPlan plan{.config = {}, .dtype = dtype};
    StoredRows rows(source, plan);
    const StoredRows::Piece piece = rows.read(matrix(), 0, kRows, true);
    EXPECT_THAT(piece.values, ElementsAreArray(source.bytes()));
    EXPECT_THAT(piece.scales, IsEmpty());
    EXPECT_EQ(piece.nonfinite, 0u);
  }
}

TEST(StoredRows, AreRoundedOnceFromFp32) {
  for (const DType from : {DType::kF64, DType::kF32, DType::kF16, DType::kBF16}) {
    for (const DType to : {DType::kF32, DType::kF16, DType::kBF16}) {
      const std::vector<float> weights = random_weights();
      const OneMatrix source(weights, from);
      std::vector<float> wide(weights.size());
      convert_to_f32(source.bytes().data(), from, wide.data(), wide.size());
      const checkpoint::ShardPlan plan{.config = {}, .dtype = to};
      StoredRows rows(source, plan);
      const std::vector<std::byte> expected = in_type(wide, to);
      EXPECT_THAT(rows.read(matrix(), 0, kRows, false).values, ElementsAreArray(expected));
      const size_t row_bytes = expected.size() / kRows;
      EXPECT_THAT(rows.read(matrix(), 2, 2, false).values,
                  ElementsAreArray(std::span(expected).subspan(2 * row_bytes, 2 * row_bytes)));
    }
  }
}

TEST(StoredRows, QuantiseWhatWasRoundedBefore) {
  for (const char* name : {"int8", "int8-mse", "fp8", "int4"}) {
    for (const DType from : {DType::kF32, DType::kF16}) {
      const std::vector<float> weights = random_weights();
      const OneMatrix source(weights, from);
      const checkpoint::ShardPlan plan{
          .config = {}, .dtype = DType::kF16, .shards = 1, .quantisation = quant::find_quantisation(name)};
      const std::vector<std::byte> rounded = in_type(weights, DType::kF16);
      std::vector<float> wide(weights.size());
      convert_to_f32(rounded.data(), DType::kF16, wide.data(), wide.size());
      StoredRows rows(source, plan);
      const StoredRows::Piece piece = rows.read(matrix(), 0, kRows, true);
      std::vector<std::byte> values(piece.values.size());
      std::vector<float> scales(piece.scales.size());
      quant::quantise_rows(*plan.quantisation, wide, kCols, values, scales);
      EXPECT_THAT(piece.values, ElementsAreArray(values)) << name;
      EXPECT_THAT(piece.scales, ElementsAreArray(scales)) << name;
    }
  }
}

TEST(StoredRows, CountWeightsThatAreNotFinite) {
  std::vector<float> weights = random_weights();
  weights[3] = std::numeric_limits<float>::quiet_NaN();
  weights[kCols] = -HUGE_VALF;
  weights[kCols + 1] = 1e6f;  // infinite in half precision only
  const OneMatrix source(weights, DType::kF32);
  for (const auto& [dtype, expected] : {std::pair(DType::kF32, 2u), {DType::kF16, 3u}, {DType::kBF16, 2u}}) {
    const checkpoint::ShardPlan plan{.config = {}, .dtype = dtype};
    StoredRows rows(source, plan);
    EXPECT_EQ(rows.read(matrix(), 0, kRows, true).nonfinite, expected);
    EXPECT_EQ(rows.read(matrix(), 0, kRows, false).nonfinite, 0u) << "nobody asked";
  }
  const checkpoint::ShardPlan plan{
      .config = {}, .dtype = DType::kF16, .shards = 1, .quantisation = quant::find_quantisation("int8")};
  StoredRows rows(source, plan);
  EXPECT_EQ(rows.read(matrix(), 0, kRows, false).nonfinite, 3u) << "quantised matrices cannot hold them";
}

}  // namespace stored_rows_test
}  // namespace optserve::converter

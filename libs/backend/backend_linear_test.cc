// Products with weights of every format, plain and quantised.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "backend/backend_fixture.h"
#include "base/sanitized.h"
#include "quant/e4m3.h"
#include "quant/quantise.h"
#include "quant/random_codes.h"

namespace optserve::backend {
namespace backend_linear_test {

constexpr int64_t kRowsStep = kSanitizedBuild ? 23 : 1, kRowsMax = kSanitizedBuild ? 70 : 260;

class LinearTest : public BackendTest {
 protected:
  struct Loaded {
    quant::Weight weight;
    std::vector<float> values;  // as stored
  };
  Loaded load(int64_t out, int64_t in, DType dtype) {
    Loaded result;
    const std::vector<float> wanted = normal(count({out, in}));
    std::vector<std::byte> stored(wanted.size() * dtype_bytes(dtype));
    convert_from_f32(wanted.data(), dtype, stored.data(), wanted.size());
    result.values.resize(wanted.size());
    convert_to_f32(stored.data(), dtype, result.values.data(), wanted.size());
    result.weight = backend_->load_weight({*quant::plain_format(dtype), out, in, stored.data()});
    return result;
  }

  Activation any_activation() {
    constexpr std::array kAll = {Activation::kNone, Activation::kRelu, Activation::kGelu};
    return kAll[static_cast<size_t>(pick(0, 2))];
  }

  void expect_product(const std::vector<float>& x, const Loaded& w, const std::vector<float>& bias,
                      Activation activation, const std::vector<float>& found) {
    const auto in = static_cast<size_t>(w.weight.in), out = static_cast<size_t>(w.weight.out);
    for (size_t i = 0; i < found.size(); ++i) {
      double sum = bias.empty() ? 0.0 : static_cast<double>(bias[i % out]);
      double magnitude = std::abs(sum);
      for (size_t k = 0; k < in; ++k) {
        const double term = static_cast<double>(x[i / out * in + k]) * static_cast<double>(w.values[i % out * in + k]);
        sum += term;
        magnitude += std::abs(term);
      }
      if (activation == Activation::kRelu) sum = std::max(sum, 0.0);
      if (activation == Activation::kGelu) sum *= 0.5 * (1 + std::erf(sum * std::sqrt(0.5)));
      expect_near(found[i], sum, magnitude, 4 * std::sqrt(static_cast<double>(in)) + 4,
                  at(static_cast<int64_t>(i / out), static_cast<int64_t>(i % out)));
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Backends, LinearTest, testing::ValuesIn(backends_under_test()), case_name);

TEST_P(LinearTest, MatchesTheProduct) {
  for (const auto& [in, out] : {std::pair<int64_t, int64_t>{1, 1}, {3, 17}, {17, 3}, {64, 80}, {257, 130}}) {
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
      const Loaded w = load(out, in, dtype);
      for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 17}) {
        const bool with_bias = pick(0, 1) != 0;
        const Activation activation = any_activation();
        const Array x = random({rows, in}), bias = random({out}), y = poisoned({rows, out});
        backend_->linear(x, w.weight, with_bias ? bias.view : Tensor(), activation, y);
        expect_product(x.values(), w, with_bias ? bias.values() : std::vector<float>{}, activation, y.values());
      }
    }
  }
}

TEST_P(LinearTest, LargeShapesUseEveryPath) {
  const Loaded w = load(3000, 777, DType::kF32);
  const Array x = random({9, 777}), bias = random({3000}), y = poisoned({9, 3000});
  backend_->linear(x, w.weight, bias, Activation::kRelu, y);
  expect_product(x.values(), w, bias.values(), Activation::kRelu, y.values());
}

TEST_P(LinearTest, FollowsStrides) {
  const Loaded w = load(20, 30, DType::kF32);
  const Array wide = random({7, 50}), out = poisoned({7, 45}), tight = poisoned({7, 30}), expected = poisoned({7, 20});
  backend_->linear(wide.view.columns(11, 41), w.weight, {}, Activation::kNone, out.view.columns(5, 25));
  backend_->copy(wide.view.columns(11, 41), tight);
  backend_->linear(tight, w.weight, {}, Activation::kNone, expected);
  const auto found = out.values(), wanted = expected.values();
  for (int64_t i = 0; i < 7 * 45; ++i) {
    const int64_t row = i / 45, column = i % 45 - 5;
    const float value = found[static_cast<size_t>(i)];
    if (column < 0 || column >= 20) {
      EXPECT_TRUE(std::isnan(value)) << "written outside the view " << at(row, i % 45);
    } else {
      const float expected_value = wanted[static_cast<size_t>(row * 20 + column)];
      if (backend_->device().kind == DeviceKind::kCpu) {
        EXPECT_EQ(value, expected_value) << at(row, column);
      } else {  // a different alignment may mean a different order of the sum
        expect_near(value, static_cast<double>(expected_value), 30, 30, at(row, column));
      }
    }
  }
}

TEST_P(LinearTest, StoredTypeDoesNotChangeTheProduct) {
  // A weight loaded from 16 bits and the same numbers loaded as fp32 give the same bits.
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    Loaded narrow = load(33, 70, dtype);
    narrow.values[0] = dtype == DType::kF16 ? 0x1p-24f : 0x1p-130f;  // a subnormal of the type
    std::vector<uint16_t> stored(narrow.values.size());
    convert_from_f32(narrow.values.data(), dtype, stored.data(), stored.size());
    const quant::Weight a = backend_->load_weight({*quant::plain_format(dtype), 33, 70, stored.data()});
    const quant::Weight b = backend_->load_weight({quant::QuantFormat::kF32, 33, 70, narrow.values.data()});
    const Array x = random({5, 70}), y = poisoned({5, 33}), z = poisoned({5, 33});
    backend_->linear(x, a, {}, Activation::kNone, y);
    backend_->linear(x, b, {}, Activation::kNone, z);
    EXPECT_EQ(y.values(), z.values()) << dtype_name(dtype) << ", seed " << seed_;
  }
}

TEST_P(LinearTest, InfiniteHalfWeightsStayInfinite) {
  std::vector<uint16_t> stored(20, 0x3c00);
  stored[3] = 0x7c00;
  const quant::Weight weight = backend_->load_weight({quant::QuantFormat::kF16, 2, 10, stored.data()});
  const Array x = array(std::vector<float>(10, 1.0f), {1, 10}), y = poisoned_f32({1, 2});
  backend_->linear(x, weight, {}, Activation::kNone, y);
  EXPECT_TRUE(std::isinf(y.values()[0]));
  EXPECT_EQ(y.values()[1], 10.0f);
}

TEST_P(LinearTest, RowsDoNotDependOnTheBatch) {
  if (!GetParam().batch_invariant) GTEST_SKIP() << "not promised by this backend";
  for (const DType dtype : {DType::kF32, DType::kF16}) {
    const Loaded w = load(200, 515, dtype);
    const Array x = random({70, 515}), bias = random({200}), alone = poisoned({1, 200});
    std::vector<std::vector<float>> expected;
    for (int64_t row = 0; row < 70; ++row) {
      backend_->linear(x.view.rows(row, row + 1), w.weight, bias, Activation::kNone, alone);
      expected.push_back(alone.values());
    }
    for (int64_t rows = 1; rows <= 70; rows += kRowsStep) {
      const Array y = poisoned({rows, 200});
      backend_->linear(x.view.rows(70 - rows, 70), w.weight, bias, Activation::kNone, y);
      const auto found = y.values();
      for (int64_t row = 0; row < rows; ++row) {
        ASSERT_EQ(std::memcmp(&found[static_cast<size_t>(row) * 200],
                              expected[static_cast<size_t>(70 - rows + row)].data(), 200 * sizeof(float)),
                  0)
            << rows << " rows, row " << row << ", seed " << seed_;
      }
    }
  }
}

// Quantised weights against the products of their dequantised values.
class QuantisedLinearTest : public LinearTest {
 protected:
  // Random codes, all of them for int8 and int4, with scales that differ.
  Loaded load_quantised(quant::QuantFormat format, int64_t out, int64_t in) {
    std::vector<std::byte> values(static_cast<size_t>(out * elements_per_row(format, in)));
    for (std::byte& value : values) {
      value = static_cast<std::byte>(pick(0, 255));
      const bool is_nan = format == quant::QuantFormat::kFp8 && (static_cast<int>(value) & 0x7f) == 0x7f;
      if (is_nan) value = std::byte{0};
    }
    std::vector<float> scales(static_cast<size_t>(out * scales_per_row(format, in)));
    for (float& scale : scales) scale = std::ldexp(static_cast<float>(pick(64, 127)), -13);
    Loaded result;
    result.values.resize(count({out, in}));
    quant::dequantise_rows(format, values, scales, in, result.values);
    result.weight = backend_->load_weight({format, out, in, values.data(), scales.data()});
    return result;
  }
};
INSTANTIATE_TEST_SUITE_P(Backends, QuantisedLinearTest, testing::ValuesIn(backends_under_test()), case_name);

constexpr quant::QuantFormat kQuantised[] = {quant::QuantFormat::kInt8, quant::QuantFormat::kFp8,
                                             quant::QuantFormat::kInt4};

TEST_P(QuantisedLinearTest, EqualsTheDequantisedProduct) {
  for (const quant::QuantFormat format : kQuantised) {
    for (const auto& [in, out] : {std::pair<int64_t, int64_t>{128, 1}, {256, 100}, {768, 65}, {1024, 330}}) {
      const Loaded w = load_quantised(format, out, in);
      for (const int64_t rows : {1, 2, 3, 7, 8, 9, 16, 17, 33, 70, 129, 260}) {
        if (rows > kRowsMax) continue;
        SCOPED_TRACE(std::string(info(format).name) + ", rows " + std::to_string(rows));
        const bool with_bias = pick(0, 1) != 0;
        const Activation activation = any_activation();
        const Array x = random({rows, in}), bias = random({out}), y = poisoned({rows, out});
        backend_->linear(x, w.weight, with_bias ? bias.view : Tensor(), activation, y);
        expect_product(x.values(), w, with_bias ? bias.values() : std::vector<float>{}, activation, y.values());
        if (HasFailure()) return;
      }
    }
  }
}

// Numbers of inputs that no kernel for whole vectors accepts.
TEST_P(QuantisedLinearTest, TakesOddShapes) {
  for (const quant::QuantFormat format : {quant::QuantFormat::kInt8, quant::QuantFormat::kFp8}) {
    for (const auto& [in, out] : {std::pair<int64_t, int64_t>{1, 1}, {3, 17}, {77, 130}, {200, 9}}) {
      const Loaded w = load_quantised(format, out, in);
      for (const int64_t rows : {1, 5, 40}) {
        const Array x = random({rows, in}), y = poisoned({rows, out});
        backend_->linear(x, w.weight, {}, Activation::kNone, y);
        expect_product(x.values(), w, {}, Activation::kNone, y.values());
      }
    }
  }
}

TEST_P(QuantisedLinearTest, FollowsStridesAndWritesFp32) {
  const Loaded w = load_quantised(quant::QuantFormat::kInt8, 20, 64);
  for (const int64_t rows : {2, 40}) {
    const Array wide = random({rows, 96}), y = poisoned_f32({rows, 40}), tight = poisoned({rows, 64});
    backend_->linear(wide.view.columns(16, 80), w.weight, {}, Activation::kNone, y.view.columns(5, 25));
    backend_->copy(wide.view.columns(16, 80), tight);
    const auto found = y.values();
    std::vector<float> inside;
    for (size_t i = 0; i < found.size(); ++i) {
      const bool in_view = i % 40 >= 5 && i % 40 < 25;
      if (in_view) inside.push_back(found[i]);
      EXPECT_TRUE(in_view || std::isnan(found[i])) << "written outside the view";
    }
    expect_product(tight.values(), w, {}, Activation::kNone, inside);
  }
}

TEST_P(QuantisedLinearTest, KeepsNoWideCopy) {
  if (GetParam().batch_invariant && backend_->device().kind == DeviceKind::kCuda) GTEST_SKIP() << "dequantises at load";
  if (backend_->device().kind == DeviceKind::kCuda && backend_->compute_dtype() == DType::kF32) {
    GTEST_SKIP() << "dequantises at load";
  }
  for (const quant::QuantFormat format : kQuantised) {
    const Loaded w = load_quantised(format, 640, 1024);
    EXPECT_EQ(w.weight.format, format);
    EXPECT_EQ(w.weight.values.bytes(), size_t{640} * 1024 * (format == quant::QuantFormat::kInt4 ? 1 : 2) / 2);
    EXPECT_EQ(w.weight.scales.bytes(), size_t{640} * 4 * (format == quant::QuantFormat::kInt4 ? 8 : 1));
    EXPECT_EQ(w.weight.values.bytes() + w.weight.scales.bytes(), backend_->weight_bytes(format, 640, 1024));
  }
}

TEST_P(QuantisedLinearTest, RowsDoNotDependOnTheBatch) {
  if (!GetParam().batch_invariant) GTEST_SKIP() << "not promised by this backend";
  for (const quant::QuantFormat format : kQuantised) {
    const Loaded w = load_quantised(format, 200, 512);
    const Array x = random({70, 512}), alone = poisoned({1, 200}), together = poisoned({70, 200});
    backend_->linear(x, w.weight, {}, Activation::kNone, together);
    const auto found = together.values();
    for (int64_t row = 0; row < 70; ++row) {
      backend_->linear(x.view.rows(row, row + 1), w.weight, {}, Activation::kNone, alone);
      ASSERT_EQ(std::memcmp(alone.values().data(), &found[static_cast<size_t>(row) * 200], 200 * sizeof(float)), 0)
          << "row " << row << ", seed " << seed_;
    }
  }
}

TEST_P(QuantisedLinearTest, RandomWeightsHoldTheSameValuesEverywhere) {
  for (const quant::QuantFormat format : kQuantised) {
    const RandomBlock block{
        .key = 77, .reach = 0.5f, .runs = {{2, 3}, {9, 1}, {1, 5}}, .first_col = 128, .cols = 128, .whole_cols = 384};
    std::vector<std::byte> codes(static_cast<size_t>(9 * elements_per_row(format, 128)));
    quant::fill_random_codes(block, format, codes);
    const std::vector<float> scales(static_cast<size_t>(9 * scales_per_row(format, 128)),
                                    quant::random_scale(block, format));
    std::vector<float> expected(9 * 128), unit(128 * 128, 0.0f);
    quant::dequantise_rows(format, codes, scales, 128, expected);
    for (size_t i = 0; i < 128; ++i) unit[i * 128 + i] = 1;
    const Array x = array(unit, {128, 128}), y = poisoned_f32({128, 9});
    backend_->linear(x, backend_->random_weight(block, format), {}, Activation::kNone, y);
    const auto found = y.values();
    for (size_t i = 0; i < found.size(); ++i) {
      const float wanted = expected[i % 9 * 128 + i / 9];
      expect_near(found[i], static_cast<double>(wanted), std::abs(static_cast<double>(wanted)), 2,
                  info(format).name.data());
    }
  }
}

// Products with fp8 weights that round x as well.
class Fp8ActivationsTest : public QuantisedLinearTest {
 protected:
  Fp8ActivationsTest() {
    BackendOptions options = GetParam().options;
    options.fp8_activations = true;
    backend_ = make_backend(options);
  }

  // As BackendOptions::fp8_activations defines it.
  static std::vector<float> rounded(std::vector<float> x, int64_t in) {
    for (size_t row = 0; row < x.size(); row += static_cast<size_t>(in)) {
      float most = 0;
      for (size_t i = row; i < row + static_cast<size_t>(in); ++i) most = std::max(most, std::abs(x[i]));
      const float scale = most > 0 ? most / quant::kE4m3Max : 1;
      for (size_t i = row; i < row + static_cast<size_t>(in); ++i) {
        x[i] = quant::e4m3_to_float(quant::float_to_e4m3(x[i] / scale)) * scale;
      }
    }
    return x;
  }
};
INSTANTIATE_TEST_SUITE_P(Backends, Fp8ActivationsTest, testing::ValuesIn(backends_under_test()), case_name);

// If rounding changes nothing there is only one right result, whichever way a device takes.
TEST_P(Fp8ActivationsTest, NumbersOfTheFormatAreMultipliedExactly) {
  for (const auto& [in, out] : {std::pair<int64_t, int64_t>{16, 16}, {256, 112}, {1024, 336}, {77, 130}}) {
    const Loaded w = load_quantised(quant::QuantFormat::kFp8, out, in);
    for (const int64_t rows : {1, 8, 40, 64, 130, 260}) {
      if (rows > kRowsMax) continue;
      std::vector<float> values(count({rows, in}));
      for (size_t i = 0; i < values.size(); ++i) {
        const auto code = static_cast<uint8_t>(pick(0, 255) & 0xf7);  // no NaN
        values[i] = i % static_cast<size_t>(in) == 0 ? 3.5f : quant::e4m3_to_float(code) / 128;
      }
      const Activation activation = any_activation();
      const Array x = array(values, {rows, in}), bias = random({out}), y = poisoned({rows, out});
      backend_->linear(x, w.weight, bias, activation, y);
      expect_product(x.values(), w, bias.values(), activation, y.values());
      if (HasFailure()) return;
    }
  }
}

TEST_P(Fp8ActivationsTest, OtherNumbersAreRoundedOrNot) {
  constexpr int64_t kIn = 1024, kOut = 336;
  const Loaded w = load_quantised(quant::QuantFormat::kFp8, kOut, kIn);
  for (const int64_t rows : {1, 40, 260}) {
    if (rows > kRowsMax) continue;
    const Array x = random({rows, kIn}), y = poisoned({rows, kOut});
    backend_->linear(x, w.weight, {}, Activation::kNone, y);
    const std::vector<float> held = x.values(), near = rounded(held, kIn), found = y.values();
    double apart[2] = {};  // squared distances from the products of x as it is and of x rounded
    double whole = 0;
    for (size_t i = 0; i < found.size(); ++i) {
      double sums[2] = {};
      for (size_t k = 0; k < kIn; ++k) {
        const auto weight = static_cast<double>(w.values[i % kOut * kIn + k]);
        sums[0] += static_cast<double>(held[i / kOut * kIn + k]) * weight;
        sums[1] += static_cast<double>(near[i / kOut * kIn + k]) * weight;
      }
      for (size_t way = 0; way < 2; ++way) apart[way] += std::pow(static_cast<double>(found[i]) - sums[way], 2);
      whole += sums[0] * sums[0];
    }
    const double of_one = std::min(apart[0], apart[1]), of_other = std::max(apart[0], apart[1]);
    EXPECT_LT(std::sqrt(of_one / whole), 4 * epsilon() + 1e-5) << rows << " rows, seed " << seed_;
    EXPECT_GT(std::sqrt(of_other / whole), 0.01) << rows << " rows, seed " << seed_;
    EXPECT_LT(std::sqrt(of_other / whole), 0.04) << rows << " rows, seed " << seed_;
    if (backend_->device().kind == DeviceKind::kCpu) {
      EXPECT_LT(apart[1], apart[0]) << "the CPU always rounds";
    }
  }
}

// Weights that are also stored by input, so that products of few rows can skip what is multiplied by zeros.
class SparseInputTest : public QuantisedLinearTest {
 protected:
  SparseInputTest() { use(ReluSkip::kAlways); }
  void use(ReluSkip relu_skip) {
    BackendOptions options = GetParam().options;
    options.relu_skip = relu_skip;
    backend_ = make_backend(options);
  }

  Loaded load_sparse(quant::QuantFormat format, int64_t out, int64_t in) {
    Loaded w = is_plain(format) ? load(out, in, DType::kF16) : load_quantised(format, out, in);
    backend_->prepare_sparse_input(w.weight);
    EXPECT_EQ(w.weight.by_input.bytes(), backend_->sparse_input_bytes(w.weight.format, out, in));
    return w;
  }

  // Normally distributed numbers, of which the share `zeros` is replaced by zeros, some of them negative.
  Array sparse(int64_t rows, int64_t in, double zeros) {
    std::vector<float> values = normal(count({rows, in}));
    std::bernoulli_distribution is_zero(zeros), is_negative(0.1);
    for (float& value : values) {
      if (is_zero(random_)) value = is_negative(random_) ? -0.0f : 0.0f;
    }
    return array(values, {rows, in});
  }
};
INSTANTIATE_TEST_SUITE_P(Backends, SparseInputTest, testing::ValuesIn(backends_under_test()), case_name);

TEST_P(SparseInputTest, EqualsTheWholeProduct) {
  for (const quant::QuantFormat format : {quant::QuantFormat::kF16, quant::QuantFormat::kInt8}) {
    for (const auto& [in, out] :
         {std::pair<int64_t, int64_t>{8, 8}, {72, 264}, {768, 40}, {2120, 520}, {77, 30}, {5000, 8}}) {
      const Loaded w = load_sparse(format, out, in);
      for (const int64_t rows : {1, 2, 3, 4, 5, 8, 9}) {
        for (const double zeros : {0.0, 0.6, 0.95, 1.0}) {
          SCOPED_TRACE(std::string(info(format).name) + ", [" + std::to_string(out) + ", " + std::to_string(in) +
                       "], rows " + std::to_string(rows) + ", zeros " + std::to_string(zeros));
          const Array x = sparse(rows, in, zeros), y = poisoned({rows, out});
          backend_->linear(x, w.weight, {}, Activation::kNone, y);
          expect_product(x.values(), w, {}, Activation::kNone, y.values());
          if (HasFailure()) return;
        }
      }
    }
  }
}

TEST_P(SparseInputTest, FollowsStridesAndGivesTheSameBitsAgain) {
  const Loaded w = load_sparse(quant::QuantFormat::kF16, 256, 512);
  const Array wide = sparse(6, 640, 0.9), tight = poisoned({6, 512}), y = poisoned({6, 300}), z = poisoned({6, 300});
  for (const Array* out : {&y, &z}) {
    backend_->linear(wide.view.columns(64, 576), w.weight, {}, Activation::kNone, out->view.columns(8, 264));
  }
  backend_->copy(wide.view.columns(64, 576), tight);
  const auto first = y.values(), second = z.values();
  EXPECT_EQ(std::memcmp(first.data(), second.data(), first.size() * sizeof(float)), 0);
  std::vector<float> inside;
  for (size_t i = 0; i < first.size(); ++i) {
    const bool in_view = i % 300 >= 8 && i % 300 < 264;
    if (in_view) inside.push_back(first[i]);
    EXPECT_TRUE(in_view || std::isnan(first[i])) << "written outside the view";
  }
  expect_product(tight.values(), w, {}, Activation::kNone, inside);
}

// If a weight is infinite, only a product that skips it is finite.
TEST_P(SparseInputTest, ReadsOnlyWhatIsNotMultipliedByZeros) {
  constexpr int64_t kIn = 64, kOut = 16, kSkipped = 13;
  std::vector<float> values = normal(count({kOut, kIn}));
  for (size_t row = 0; row < kOut; ++row) values[row * kIn + kSkipped] = std::numeric_limits<float>::infinity();
  quant::Weight weight = backend_->load_weight({quant::QuantFormat::kF32, kOut, kIn, values.data()});
  backend_->prepare_sparse_input(weight);
  if (weight.by_input.data() == nullptr) GTEST_SKIP() << "this backend skips nothing";
  std::vector<float> x(2 * kIn, 1.0f);
  x[kSkipped] = 0.0f, x[kIn + kSkipped] = -0.0f;
  const Array some = array(x, {2, kIn}), y = poisoned({2, kOut});
  backend_->linear(some, weight, {}, Activation::kNone, y);
  for (const float found : y.values()) EXPECT_TRUE(std::isfinite(found));
  x[kIn + kSkipped] = kNan;
  backend_->linear(array(x, {2, kIn}), weight, {}, Activation::kNone, y);
  for (const float found : y.values()) EXPECT_TRUE(std::isnan(found)) << "NaN is not zero";
}

// Repeated often enough that a recorded body is run in both ways.
TEST_P(SparseInputTest, RecordedBodiesGiveTheProductEitherWay) {
  use(ReluSkip::kMeasured);
  const Loaded w = load_sparse(quant::QuantFormat::kF16, 512, 2048);
  const Array x = poisoned({2, 2048}), y = poisoned({2, 512});
  for (int run = 0; run < 80; ++run) {
    backend_->copy(sparse(2, 2048, 0.95), x);
    backend_->capture_or_run(3, [&] { backend_->linear(x, w.weight, {}, Activation::kNone, y); });
    expect_product(x.values(), w, {}, Activation::kNone, y.values());
    if (HasFailure()) return;
  }
}

}  // namespace backend_linear_test
}  // namespace optserve::backend

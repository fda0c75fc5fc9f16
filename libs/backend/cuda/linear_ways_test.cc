// Tests each kernel for quantised weights on its own, whichever one the timing would choose, on every class of row
// counts.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <span>

#include "backend/backend_fixture.h"
#include "backend/cuda/cuda_memory.h"
#include "backend/cuda/kernel_names.h"
#include "kernels/byte_rows.h"
#include "kernels/wgmma_linear.h"
#include "quant/e4m3.h"
#include "quant/quantise.h"

namespace optserve::backend {
namespace linear_ways_test {

constexpr int64_t kRowsMax = 260;

kernels::DeviceLimits device_limits() {
  cudaDeviceProp properties{};
  cuda::expect(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  return {.multiprocessors = properties.multiProcessorCount,
          .shared_bytes_max = static_cast<int>(properties.sharedMemPerBlockOptin),
          .compute_capability = properties.major * 10 + properties.minor};
}

class LinearWaysTest : public BackendTest {
 protected:
  struct Product {
    quant::Weight weight;
    std::vector<double> sums, magnitudes;  // [kRowsMax, out], without a bias
  };

  // Random codes and scales times x[kRowsMax, in].
  Product product(quant::QuantFormat format, int64_t out, int64_t in, const std::vector<float>& x) {
    std::vector<std::byte> codes(static_cast<size_t>(out * elements_per_row(format, in)));
    for (std::byte& code : codes) {
      code = static_cast<std::byte>(pick(0, 255));
      if (format == quant::QuantFormat::kFp8 && (static_cast<int>(code) & 0x7f) == 0x7f) code = std::byte{0};  // NaN
    }
    std::vector<float> scales(static_cast<size_t>(out * scales_per_row(format, in))), values(count({out, in}));
    for (float& scale : scales) scale = std::ldexp(static_cast<float>(pick(64, 127)), -13);
    quant::dequantise_rows(format, codes, scales, in, values);
    Product result{backend_->load_weight({format, out, in, codes.data(), scales.data()}), {}, {}};
    backend_->synchronize();
    for (int64_t row = 0; row < kRowsMax; ++row) {
      for (int64_t column = 0; column < out; ++column) {
        const float *a = &x[static_cast<size_t>(row * in)], *b = &values[static_cast<size_t>(column * in)];
        double sum = 0, magnitude = 0;
        for (int64_t i = 0; i < in; ++i) {
          const double term = static_cast<double>(a[i]) * static_cast<double>(b[i]);
          sum += term, magnitude += std::abs(term);
        }
        result.sums.push_back(sum), result.magnitudes.push_back(magnitude);
      }
    }
    return result;
  }

  // Runs `launch` twice on some rows, with space around y, and checks that the values are right, the bits are the same,
  // and the space is untouched.
  template <class Launch>
  void expect_product(const Product& expected, const Array& x, const Array& bias, int64_t rows, const Launch& launch) {
    const int64_t out = expected.weight.out, stride = out + pick(0, 1) * 3 + 5;  // pairs of outputs are aligned or not
    kernels::QuantisedLinearArgs args{
        .format = cuda::weight_format(expected.weight.format),
        .element = backend_->compute_dtype() == DType::kF16 ? kernels::Element::kF16 : kernels::Element::kBF16,
        .relu = pick(0, 1) != 0,
        .x = x.view.raw(),
        .x_stride = x.view.dim(1),
        .values = expected.weight.values.data(),
        .scales = static_cast<const float*>(expected.weight.scales.data()),
        .bias = pick(0, 1) != 0 ? bias.view.raw() : nullptr,
        .y_stride = stride,
        .rows = rows,
        .in = expected.weight.in,
        .out = out};
    std::vector<float> first;
    for (int run = 0; run < 2; ++run) {
      const Array y = poisoned({rows, stride});
      args.y = y.view.raw();
      if (!launch(args)) return;
      const std::vector<float> found = y.values();
      if (run == 1) {
        EXPECT_EQ(std::memcmp(first.data(), found.data(), found.size() * sizeof(float)), 0)
            << "another run, other bits";
      }
      first = found;
    }
    const std::vector<float> added = bias.values();
    for (int64_t i = 0; i < rows * stride; ++i) {
      const int64_t row = i / stride, column = i % stride;
      if (column >= out) {
        EXPECT_TRUE(std::isnan(first[static_cast<size_t>(i)])) << "written outside " << at(row, column);
        continue;
      }
      const auto cell = static_cast<size_t>(row * out + column);
      double sum = expected.sums[cell];
      if (args.bias != nullptr) sum += static_cast<double>(added[static_cast<size_t>(column)]);
      if (args.relu) sum = std::max(sum, 0.0);
      // Values are multiplied exactly and added in fp32, followed by one rounding.
      EXPECT_NEAR(first[static_cast<size_t>(i)], sum, 2 * epsilon() * std::abs(sum) + 1e-5 * expected.magnitudes[cell])
          << at(row, column) << ", seed " << seed_;
      if (HasFailure()) return;
    }
  }
};

std::vector<BackendCase> cases() {
  std::vector<BackendCase> result;
  for (const BackendCase& one : backends_under_test()) {
    if (!one.batch_invariant && one.options.compute_dtype != DType::kF32) result.push_back(one);
  }
  return result;
}
INSTANTIATE_TEST_SUITE_P(Backends, LinearWaysTest, testing::ValuesIn(cases()), case_name);

TEST_P(LinearWaysTest, EachEqualsTheDequantisedProduct) {
  const kernels::DeviceLimits limits = device_limits();
  const auto stream = static_cast<cudaStream_t>(backend_->native_stream());
  const Buffer scratch = cuda::device_buffer(kernels::wgmma_scratch_bytes(limits), backend_->device());
  backend_->fill_zero(scratch.view(DType::kU8, {static_cast<int64_t>(scratch.bytes())}));
  int taken = 0;
  for (const quant::QuantFormat format :
       {quant::QuantFormat::kInt8, quant::QuantFormat::kFp8, quant::QuantFormat::kInt4}) {
    for (const auto& [in, out] : {std::pair<int64_t, int64_t>{128, 8}, {1024, 330}, {3200, 900}}) {
      const Array x = random({kRowsMax, in}), bias = random({out});
      const Product expected = product(format, out, in, x.values());
      for (const int64_t rows : {1, 2, 3, 8, 9, 16, 17, 32, 33, 64, 65, 128, 129, 256, 260}) {
        SCOPED_TRACE(std::string(info(format).name) + ", rows " + std::to_string(rows) + ", in " + std::to_string(in));
        expect_product(expected, x, bias, rows, [&](const kernels::QuantisedLinearArgs& args) {
          if (!kernels::can_quantised_linear(args, limits)) return false;
          cuda::expect(kernels::quantised_linear(args, limits, stream), "quantised_linear");
          return ++taken > 0;
        });
        for (const int split : {0, 1, 2, 4}) {
          const kernels::WgmmaWay way{split == 0 ? 128 : static_cast<int>(pick(2, 3)) * 64, split};
          SCOPED_TRACE(std::to_string(way.outputs) + " outputs, split " + std::to_string(split));
          expect_product(expected, x, bias, rows, [&](const kernels::QuantisedLinearArgs& args) {
            if (!kernels::can_wgmma_linear(args, way, limits)) return false;
            cuda::expect(
                kernels::wgmma_linear(args, way, kernels::wgmma_scratch(scratch.data(), limits), limits, stream),
                "wgmma_linear");
            return ++taken > 0;
          });
        }
        if (HasFailure()) return;
      }
    }
  }
  EXPECT_GT(taken, 0);
}

// A row of x in fp8, by the functions that make fp8 weights.
struct ByteRow {
  std::vector<uint8_t> codes;
  float scale = 1;

  explicit ByteRow(std::span<const float> x) {
    float most = 0;
    for (const float value : x) most = std::max(most, std::abs(value));
    if (most > 0) scale = most / quant::kE4m3Max;
    for (const float value : x) codes.push_back(quant::float_to_e4m3(value / scale));
  }
};

TEST_P(LinearWaysTest, RowsOfBytesAreThoseOfTheFormat) {
  const auto stream = static_cast<cudaStream_t>(backend_->native_stream());
  for (const int64_t in : {16, 48, 4096, 9216, 16384}) {
    constexpr int64_t kRows = 5;
    std::vector<float> values = normal(count({kRows, in}), 3.0f);
    for (int64_t i = 0; i < in; ++i) values[static_cast<size_t>(2 * in + i)] = 0;
    for (int64_t i = 0; i < in; ++i) values[static_cast<size_t>(3 * in + i)] *= 1e-6f;
    const Array x = array(values, {kRows, in});
    const Buffer codes = backend_->allocate(static_cast<size_t>(kRows * in)), scales = backend_->allocate(kRows * 4);
    kernels::ByteRowsArgs args{
        .element = backend_->compute_dtype() == DType::kF16 ? kernels::Element::kF16 : kernels::Element::kBF16,
        .x = x.view.raw(),
        .x_stride = in,
        .rows = kRows,
        .in = in,
        .codes = codes.data(),
        .scales = static_cast<float*>(scales.data())};
    ASSERT_TRUE(kernels::can_byte_rows(args));
    cuda::expect(kernels::byte_rows(args, stream), "byte_rows");
    std::vector<uint8_t> found(static_cast<size_t>(kRows * in));
    std::vector<float> found_scales(kRows);
    backend_->download(found.data(), codes.view(DType::kU8, {kRows, in}));
    backend_->download(found_scales.data(), scales.view(DType::kF32, {kRows}));
    const std::vector<float> held = x.values();
    for (int64_t row = 0; row < kRows; ++row) {
      const ByteRow expected({&held[static_cast<size_t>(row * in)], static_cast<size_t>(in)});
      EXPECT_EQ(found_scales[static_cast<size_t>(row)], expected.scale) << row << ", seed " << seed_;
      for (int64_t i = 0; i < in; ++i) {
        ASSERT_EQ(found[static_cast<size_t>(row * in + i)], expected.codes[static_cast<size_t>(i)])
            << at(row, i) << ", seed " << seed_;
      }
    }
  }
}

}  // namespace linear_ways_test
}  // namespace optserve::backend

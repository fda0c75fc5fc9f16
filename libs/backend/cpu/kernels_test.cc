// Both kernel sets do the same arithmetic; the one for any machine replaces the other on machines without AVX2.
#include "backend/cpu/kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace optserve::backend {
namespace kernels_test {

class KernelsTest : public testing::Test {
 protected:
  KernelsTest() : random_(seed_) {}
  void SetUp() override {
    if (avx2_kernels() == nullptr) GTEST_SKIP() << "no AVX2 here";
    EXPECT_EQ(&widest_kernels(), avx2_kernels());
  }
  std::vector<float> normal(size_t n) {
    std::normal_distribution<float> distribution;
    std::vector<float> values(n);
    for (float& value : values) value = distribution(random_);
    return values;
  }
  void expect_close(const std::vector<float>& a, const std::vector<float>& b, float tolerance) {
    for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], tolerance) << "element " << i << ", seed " << seed_;
  }
  const unsigned seed_ = std::random_device{}();
  std::mt19937 random_;
};

TEST_F(KernelsTest, Linear) {
  constexpr int64_t kIn = 100, kOut = 35, kPanels = 3;
  const auto x = normal(13 * kIn), bias = normal(kOut), weight = normal(kPanels * kPanelWidth * kIn);
  std::vector<uint16_t> halves(weight.size()), bfloats(weight.size());
  convert_from_f32(weight.data(), DType::kF16, halves.data(), halves.size());
  convert_from_f32(weight.data(), DType::kBF16, bfloats.data(), bfloats.size());
  // All codes except the NaN of fp8. int4 needs the most scales: five groups of 20 inputs.
  std::vector<int8_t> codes(weight.size()), floats(weight.size());
  for (size_t i = 0; i < codes.size(); ++i) {
    codes[i] = static_cast<int8_t>(random_());
    floats[i] = static_cast<int8_t>((codes[i] & 0x7f) == 0x7f ? 0 : codes[i]);
  }
  std::vector<float> scales(kPanels * kPanelWidth * 5);
  for (float& scale : scales) scale = 1e-3f * static_cast<float>(1 + random_() % 4);
  for (int64_t rows = 1; rows <= 13; ++rows) {
    std::vector<float> a(static_cast<size_t>(rows * kOut)), b = a;
    LinearProduct p{.x = x.data(),
                    .x_stride = kIn,
                    .rows = rows,
                    .in = kIn,
                    .out = kOut,
                    .weight = nullptr,
                    .scales = nullptr,
                    .group = kIn,
                    .bias = bias.data(),
                    .activation = Activation::kRelu,
                    .y = a.data(),
                    .y_stride = kOut};
    const auto compare = [&](CpuKernels::Linear baseline, CpuKernels::Linear avx2, const void* stored) {
      p.weight = stored;
      p.y = a.data();
      baseline(p, 0, kPanels);
      p.y = b.data();
      avx2(p, 0, kPanels);
      expect_close(a, b, 1e-4f);
    };
    compare(baseline_kernels().linear_f32, avx2_kernels()->linear_f32, weight.data());
    compare(baseline_kernels().linear_f16, avx2_kernels()->linear_f16, halves.data());
    compare(baseline_kernels().linear_bf16, avx2_kernels()->linear_bf16, bfloats.data());
    p.scales = scales.data();
    compare(baseline_kernels().linear_int8, avx2_kernels()->linear_int8, codes.data());
    compare(baseline_kernels().linear_fp8, avx2_kernels()->linear_fp8, floats.data());
    p.group = 20;
    compare(baseline_kernels().linear_int4, avx2_kernels()->linear_int4, codes.data());
  }
}

TEST_F(KernelsTest, Attend) {
  for (const int64_t head_dim : {5, 64, 80, 128}) {
    for (const int64_t context : {1, 7, 33}) {
      const std::vector<int32_t> blocks{2, 0, 1, 4, 3};
      const size_t cells = 5 * 8 * 2, elements = cells * static_cast<size_t>(head_dim);
      const auto keys = normal(elements), values = normal(elements), query = normal(static_cast<size_t>(head_dim));
      PagedKv kv{keys.data(), values.data(), nullptr, nullptr, blocks.data(), 8, 2, head_dim};
      std::vector<float> a(query.size()), b = a;
      baseline_kernels().attend_f32(query.data(), kv, context, a.data());
      avx2_kernels()->attend_f32(query.data(), kv, context, b.data());
      expect_close(a, b, 1e-5f);

      std::vector<int8_t> small_keys(elements), small_values(elements);
      const auto to_int8 = [](float value) { return static_cast<int8_t>(value * 30); };
      std::ranges::transform(keys, small_keys.begin(), to_int8);
      std::ranges::transform(values, small_values.begin(), to_int8);
      const std::vector<float> scales(cells, 1.0f / 30);
      kv.keys = small_keys.data();
      kv.values = small_values.data();
      kv.key_scales = kv.value_scales = scales.data();
      baseline_kernels().attend_int8(query.data(), kv, context, a.data());
      avx2_kernels()->attend_int8(query.data(), kv, context, b.data());
      expect_close(a, b, 1e-5f);
    }
  }
}

TEST_F(KernelsTest, LayerNormAndAdd) {
  for (const int64_t hidden : {1, 7, 8, 77, 768}) {
    const auto n = static_cast<size_t>(hidden);
    const auto x = normal(n), gamma = normal(n), beta = normal(n);
    std::vector<float> a(n), b(n), c = x, d = x;
    baseline_kernels().layer_norm(x.data(), gamma.data(), beta.data(), a.data(), hidden);
    avx2_kernels()->layer_norm(x.data(), gamma.data(), beta.data(), b.data(), hidden);
    expect_close(a, b, 1e-4f);
    baseline_kernels().add(gamma.data(), beta.data(), c.data(), hidden);
    avx2_kernels()->add(gamma.data(), beta.data(), d.data(), hidden);
    expect_close(c, d, 1e-5f);
  }
}

}  // namespace kernels_test
}  // namespace optserve::backend

#include <cmath>

#include "backend/cpu/cpu_backend.h"
#include "base/simd.h"
#include "tensor/shape_check.h"

namespace optserve {
namespace {

using simd::Float8;
using simd::kLanes;

constexpr float kEpsilon = 1e-5f;
constexpr int64_t kRowsPerItem = 8;  // so that a small step is not worth waking threads for

// Sum of f(x[i]) in eight running sums.
template <class F>
OPTSERVE_INLINE float sum_of(const float* x, int64_t n, const F& f) {
  Float8 sums{};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) sums += f(simd::load(x + i));
  Float8 tail{};
  for (int64_t j = i; j < n; ++j) tail[static_cast<int>(j - i)] = f(simd::broadcast(x[j]))[0];
  return simd::sum(sums + tail);
}

void normalise(const float* x, const float* gamma, const float* beta, float* out, int64_t hidden) {
  simd::run_widest([&]() __attribute__((always_inline)) {
    const auto itself = [](const Float8& v) __attribute__((always_inline)) { return v; };
    const float mean = sum_of(x, hidden, itself) / static_cast<float>(hidden);
    const auto squared_distance = [mean](const Float8& v) __attribute__((always_inline)) {
      return (v - mean) * (v - mean);
    };
    const float variance = sum_of(x, hidden, squared_distance) / static_cast<float>(hidden);
    const float scale = 1.0f / std::sqrt(variance + kEpsilon);
    for (int64_t i = 0; i < hidden; ++i) out[i] = (x[i] - mean) * scale * gamma[i] + beta[i];
  });
}

void accumulate(const float* x, const float* bias, float* residual, int64_t hidden) {
  simd::run_widest([&]() __attribute__((always_inline)) {
    if (bias == nullptr) {
      for (int64_t i = 0; i < hidden; ++i) residual[i] += x[i];
    } else {
      for (int64_t i = 0; i < hidden; ++i) residual[i] += x[i] + bias[i];
    }
  });
}

// Calls row(i) for every row, several to an item.
template <class Row>
void for_rows(ThreadPool& pool, int64_t rows, const Row& row) {
  pool.run((rows + kRowsPerItem - 1) / kRowsPerItem, [&](int64_t item, int) {
    for (int64_t i = item * kRowsPerItem; i < std::min(rows, (item + 1) * kRowsPerItem); ++i) row(i);
  });
}

void expect_norm(ShapeCheck& shapes, const Tensor& gamma, const Tensor& beta, const Tensor& out) {
  shapes.expect("gamma", gamma, DType::kF32, {"hidden"});
  shapes.expect("beta", beta, DType::kF32, {"hidden"});
  shapes.expect("out", out, DType::kF32, {"num_tokens", "hidden"});
}

const float* expect_sum(ShapeCheck& shapes, const Tensor& x, const Tensor& bias, const Tensor& residual) {
  shapes.expect("x", x, DType::kF32, {"num_tokens", "hidden"});
  shapes.expect("residual", residual, DType::kF32, {"num_tokens", "hidden"});
  if (bias.empty()) return nullptr;
  return shapes.expect("bias", bias, DType::kF32, {"hidden"}), bias.data<float>();
}

}  // namespace

void CpuBackend::layer_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, Tensor out) {
  ShapeCheck shapes("layer_norm");
  shapes.expect("x", x, DType::kF32, {"num_tokens", "hidden"});
  expect_norm(shapes, gamma, beta, out);
  const int64_t hidden = shapes["hidden"];
  for_rows(pool_, shapes["num_tokens"], [&](int64_t i) {
    normalise(x.row<float>(i), gamma.data<float>(), beta.data<float>(), out.row<float>(i), hidden);
  });
}

void CpuBackend::add_bias_residual(const Tensor& x, const Tensor& bias, Tensor residual) {
  ShapeCheck shapes("add_bias_residual");
  const float* bias_data = expect_sum(shapes, x, bias, residual);
  const int64_t hidden = shapes["hidden"];
  for_rows(pool_, shapes["num_tokens"],
           [&](int64_t i) { accumulate(x.row<float>(i), bias_data, residual.row<float>(i), hidden); });
}

void CpuBackend::add_bias_residual_norm(const Tensor& x, const Tensor& bias, Tensor residual, const Tensor& gamma,
                                        const Tensor& beta, Tensor out) {
  ShapeCheck shapes("add_bias_residual_norm");
  const float* bias_data = expect_sum(shapes, x, bias, residual);
  expect_norm(shapes, gamma, beta, out);
  const int64_t hidden = shapes["hidden"];
  for_rows(pool_, shapes["num_tokens"], [&](int64_t i) {
    accumulate(x.row<float>(i), bias_data, residual.row<float>(i), hidden);
    normalise(residual.row<float>(i), gamma.data<float>(), beta.data<float>(), out.row<float>(i), hidden);
  });
}

}  // namespace optserve

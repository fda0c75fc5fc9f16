#include <algorithm>

#include "backend/cpu/cpu_backend.h"
#include "tensor/shape_check.h"

namespace optserve {
namespace {

constexpr int64_t kRowsPerItem = 8;  // a few rows are done before another thread has woken

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

// The bias, or null.
const float* expect_sum(ShapeCheck& shapes, const Tensor& x, const Tensor& bias, const Tensor& residual) {
  shapes.expect("x", x, DType::kF32, {"num_tokens", "hidden"});
  shapes.expect("residual", residual, DType::kF32, {"num_tokens", "hidden"});
  if (bias.empty()) return nullptr;
  shapes.expect("bias", bias, DType::kF32, {"hidden"});
  return bias.data<float>();
}

}  // namespace

void CpuBackend::layer_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, Tensor out) {
  ShapeCheck shapes("layer_norm");
  shapes.expect("x", x, DType::kF32, {"num_tokens", "hidden"});
  expect_norm(shapes, gamma, beta, out);
  const int64_t hidden = shapes["hidden"];
  for_rows(pool_, shapes["num_tokens"], [&](int64_t i) {
    kernels_.layer_norm(x.row<float>(i), gamma.data<float>(), beta.data<float>(), out.row<float>(i), hidden);
  });
}

void CpuBackend::add_bias_residual(const Tensor& x, const Tensor& bias, Tensor residual) {
  ShapeCheck shapes("add_bias_residual");
  const float* bias_data = expect_sum(shapes, x, bias, residual);
  const int64_t hidden = shapes["hidden"];
  for_rows(pool_, shapes["num_tokens"],
           [&](int64_t i) { kernels_.add(x.row<float>(i), bias_data, residual.row<float>(i), hidden); });
}

void CpuBackend::add_bias_residual_norm(const Tensor& x, const Tensor& bias, Tensor residual, const Tensor& gamma,
                                        const Tensor& beta, Tensor out) {
  ShapeCheck shapes("add_bias_residual_norm");
  const float* bias_data = expect_sum(shapes, x, bias, residual);
  expect_norm(shapes, gamma, beta, out);
  const int64_t hidden = shapes["hidden"];
  for_rows(pool_, shapes["num_tokens"], [&](int64_t i) {
    float* sum = residual.row<float>(i);
    kernels_.add(x.row<float>(i), bias_data, sum, hidden);
    kernels_.layer_norm(sum, gamma.data<float>(), beta.data<float>(), out.row<float>(i), hidden);
  });
}

}  // namespace optserve

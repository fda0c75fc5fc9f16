#include <algorithm>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/kernel_accesses.h"

namespace optserve::backend {
namespace {

constexpr int64_t kRowsPerItem = 8;  // a few rows take less time than waking another thread

// Calls row(i) for every row, several to an item.
template <class Row>
void for_rows(ThreadPool& pool, int64_t rows, const Row& row) {
  pool.run((rows + kRowsPerItem - 1) / kRowsPerItem, [&](int64_t item, int) {
    for (int64_t i = item * kRowsPerItem; i < std::min(rows, (item + 1) * kRowsPerItem); ++i) row(i);
  });
}

const float* data_or_null(const Tensor& bias) { return bias.empty() ? nullptr : bias.data<float>(); }

}  // namespace

void CpuBackend::do_layer_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, Tensor out) {
  const int64_t hidden = x.dim(1);
  for_rows(pool_, x.dim(0), [&](int64_t i) {
    will_read(x.row<float>(i), hidden);
    will_write(out.row<float>(i), hidden);
    kernels_.layer_norm(x.row<float>(i), gamma.data<float>(), beta.data<float>(), out.row<float>(i), hidden);
  });
}

void CpuBackend::do_add_bias_residual(const Tensor& x, const Tensor& bias, Tensor residual) {
  const float* bias_data = data_or_null(bias);
  const int64_t hidden = x.dim(1);
  for_rows(pool_, x.dim(0), [&](int64_t i) {
    will_read(x.row<float>(i), hidden);
    will_write(residual.row<float>(i), hidden);
    kernels_.add(x.row<float>(i), bias_data, residual.row<float>(i), hidden);
  });
}

void CpuBackend::do_add_bias_residual_norm(const Tensor& x, const Tensor& bias, Tensor residual, const Tensor& gamma,
                                           const Tensor& beta, Tensor out) {
  const float* bias_data = data_or_null(bias);
  const int64_t hidden = x.dim(1);
  for_rows(pool_, x.dim(0), [&](int64_t i) {
    float* sum = residual.row<float>(i);
    will_read(x.row<float>(i), hidden);
    will_write(sum, hidden);
    will_write(out.row<float>(i), hidden);
    kernels_.add(x.row<float>(i), bias_data, sum, hidden);
    kernels_.layer_norm(sum, gamma.data<float>(), beta.data<float>(), out.row<float>(i), hidden);
  });
}

}  // namespace optserve::backend

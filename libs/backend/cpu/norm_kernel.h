// Inner loops of the norm and residual operations, one row at a time.
// For the kernel sets only: each must have its own copy of this code, hence the anonymous namespace.
#pragma once

#include <cmath>

#include "backend/cpu/kernels.h"
#include "base/simd.h"

namespace optserve::backend {
namespace {

constexpr float kNormEpsilon = 1e-5f;

// Sum of f(x[i]) in eight running sums.
template <class F>
OPTSERVE_INLINE float sum_of(const float* x, int64_t n, const F& f) {
  simd::Float8 sums{};
  int64_t i = 0;
  for (; i + simd::kLanes <= n; i += simd::kLanes) sums += f(simd::load(x + i));
  float total = simd::sum(sums);
  for (; i < n; ++i) total += f(simd::broadcast(x[i]))[0];
  return total;
}

void layer_norm_kernel(const float* x, const float* gamma, const float* beta, float* out, int64_t hidden) {
  const auto itself = [](const simd::Float8& v) __attribute__((always_inline)) { return v; };
  const float mean = sum_of(x, hidden, itself) / static_cast<float>(hidden);
  const auto squared_distance = [mean](const simd::Float8& v) __attribute__((always_inline)) {
    return (v - mean) * (v - mean);
  };
  const float variance = sum_of(x, hidden, squared_distance) / static_cast<float>(hidden);
  const float scale = 1.0f / std::sqrt(variance + kNormEpsilon);
  for (int64_t i = 0; i < hidden; ++i) out[i] = (x[i] - mean) * scale * gamma[i] + beta[i];
}

void add_kernel(const float* x, const float* bias, float* residual, int64_t hidden) {
  if (bias == nullptr) {
    for (int64_t i = 0; i < hidden; ++i) residual[i] += x[i];
  } else {
    for (int64_t i = 0; i < hidden; ++i) residual[i] += x[i] + bias[i];
  }
}

}  // namespace
}  // namespace optserve::backend

// The loops of scan.h. For the kernel sets only: what is here must have a copy of its own in each, hence the anonymous
// namespace. Tails are padded with -infinity or 0, which change neither a maximum nor a sum.
#pragma once

#include <cmath>
#include <cstring>

#include "base/simd.h"
#include "sampling/scan.h"

namespace optserve::sampling {
namespace {

constexpr size_t kLanes = simd::kLanes;

// Up to eight values from `source`, filled up with `filler`.
OPTSERVE_INLINE simd::Float8 load_tail(const float* source, size_t n, float filler) {
  float values[kLanes];
  for (size_t i = 0; i < kLanes; ++i) values[i] = i < n ? source[i] : filler;
  return simd::load(values);
}

LogitRange range_kernel(const float* logits, size_t n) {
  simd::Float8 high = simd::broadcast(-INFINITY), broken{};
  const auto include = [&](const simd::Float8& value) __attribute__((always_inline)) {
    high = simd::max(value, high);
    broken += value - value;  // 0 for finite values, NaN for others
  };
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) include(simd::load(logits + i));
  if (i < n) include(load_tail(logits + i, n - i, logits[i]));
  return {simd::sum(broken) == 0.0f, simd::largest(high)};
}

double exponentials_kernel(const float* logits, size_t n, float largest, float scale, float* terms) {
  double total = 0;
  for (size_t begin = 0; begin < n; begin += kSumBlock) {
    const size_t end = begin + kSumBlock < n ? begin + kSumBlock : n;
    simd::Float8 sums{};
    size_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
      const simd::Float8 term = simd::exp((simd::load(logits + i) - largest) * scale);
      sums += term;
      if (terms != nullptr) simd::store(terms + i, term);
    }
    if (i < end) {
      const simd::Float8 term = simd::exp((load_tail(logits + i, end - i, -INFINITY) - largest) * scale);
      sums += term;
      if (terms != nullptr) std::memcpy(terms + i, &term, (end - i) * sizeof(float));
    }
    total += static_cast<double>(simd::sum(sums));
  }
  return total;
}

void running_sums_kernel(const float* weights, size_t n, double* running) {
  using Double8 [[gnu::vector_size(64)]] = double;
  double total = 0;
  for (size_t begin = 0; begin < n; begin += kSumBlock) {
    const size_t end = begin + kSumBlock < n ? begin + kSumBlock : n;
    Double8 sums{};
    size_t i = begin;
    for (; i + kLanes <= end; i += kLanes) sums += __builtin_convertvector(simd::load(weights + i), Double8);
    for (; i < end; ++i) total += static_cast<double>(weights[i]);
    for (size_t lane = 0; lane < kLanes; ++lane) total += sums[lane];
    *running++ = total;
  }
}

void block_maxima_kernel(const float* values, size_t n, float* maxima) {
  size_t begin = 0;
  for (; begin + kMaxBlock <= n; begin += kMaxBlock) {
    simd::Float8 high = simd::load(values + begin);
    for (size_t i = kLanes; i < kMaxBlock; i += kLanes) high = simd::max(high, simd::load(values + begin + i));
    *maxima++ = simd::largest(high);
  }
  if (begin == n) return;
  float high = values[begin];
  for (size_t i = begin + 1; i < n; ++i) high = values[i] > high ? values[i] : high;
  *maxima = high;
}

void cut_below_kernel(float* logits, float* weights, size_t n, float cut) {
  for (size_t i = 0; i < n; ++i) {
    const bool below = logits[i] < cut;
    weights[i] = below ? 0.0f : weights[i];
    logits[i] = below ? -INFINITY : logits[i];
  }
}

constexpr ScanKernels kScanKernels{range_kernel, exponentials_kernel, running_sums_kernel, block_maxima_kernel,
                                   cut_below_kernel};

}  // namespace
}  // namespace optserve::sampling

#include "sampling/scan.h"

#include <cmath>
#include <cstring>

#include "base/simd.h"

namespace optserve::sampling {
namespace {

constexpr size_t kLanes = simd::kLanes;

// The last values of an array, at most eight. Missing ones are replaced by `filler`, which is -infinity for a maximum
// or 0 for a sum.
OPTSERVE_INLINE simd::Float8 load_tail(const float* source, size_t n, float filler) {
  float values[kLanes];
  for (size_t i = 0; i < kLanes; ++i) values[i] = i < n ? source[i] : filler;
  return simd::load(values);
}

OPTSERVE_INLINE LogitRange range(const float* logits, size_t n) {
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

OPTSERVE_INLINE double exponentials(const float* logits, size_t n, float largest, float scale, float* terms) {
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

OPTSERVE_INLINE void running_sums(const float* weights, size_t n, double* running) {
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

OPTSERVE_INLINE void block_maxima(const float* values, size_t n, float* maxima) {
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

OPTSERVE_INLINE void cut_below(float* logits, float* weights, size_t n, float cut) {
  for (size_t i = 0; i < n; ++i) {
    const bool below = logits[i] < cut;
    weights[i] = below ? 0.0f : weights[i];
    logits[i] = below ? -INFINITY : logits[i];
  }
}

LogitRange range_baseline(const float* logits, size_t n) { return range(logits, n); }
OPTSERVE_AVX2 LogitRange range_avx2(const float* logits, size_t n) { return range(logits, n); }

double exponentials_baseline(const float* logits, size_t n, float largest, float scale, float* terms) {
  return exponentials(logits, n, largest, scale, terms);
}
OPTSERVE_AVX2 double exponentials_avx2(const float* logits, size_t n, float largest, float scale, float* terms) {
  return exponentials(logits, n, largest, scale, terms);
}

void running_sums_baseline(const float* weights, size_t n, double* running) { running_sums(weights, n, running); }
OPTSERVE_AVX2 void running_sums_avx2(const float* weights, size_t n, double* running) {
  running_sums(weights, n, running);
}

void block_maxima_baseline(const float* values, size_t n, float* maxima) { block_maxima(values, n, maxima); }
OPTSERVE_AVX2 void block_maxima_avx2(const float* values, size_t n, float* maxima) { block_maxima(values, n, maxima); }

void cut_below_baseline(float* logits, float* weights, size_t n, float cut) { cut_below(logits, weights, n, cut); }
OPTSERVE_AVX2 void cut_below_avx2(float* logits, float* weights, size_t n, float cut) {
  cut_below(logits, weights, n, cut);
}

constexpr ScanKernels kBaseline{range_baseline, exponentials_baseline, running_sums_baseline, block_maxima_baseline,
                                cut_below_baseline};
constexpr ScanKernels kAvx2{range_avx2, exponentials_avx2, running_sums_avx2, block_maxima_avx2, cut_below_avx2};

}  // namespace

const ScanKernels& baseline_scan() { return kBaseline; }

const ScanKernels* avx2_scan() { return has_avx2() ? &kAvx2 : nullptr; }

const ScanKernels& widest_scan() { return has_avx2() ? kAvx2 : kBaseline; }

}  // namespace optserve::sampling

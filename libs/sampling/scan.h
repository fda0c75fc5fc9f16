// Passes over the logits of a whole vocabulary, in which sampling on the CPU spends its time. Each is compiled twice,
// for any machine and for AVX2 (base/avx2.h).
#pragma once

#include <cstddef>

namespace optserve::sampling {

inline constexpr size_t kSumBlock = 512;  // weights between two entries of the running sums
inline constexpr size_t kMaxBlock = 32;   // values that share one maximum

struct LogitRange {
  bool finite;    // there is no NaN and no infinity
  float largest;  // -infinity for no logits
};

struct ScanKernels {
  LogitRange (*range)(const float* logits, size_t n);
  // Computes terms[i] = exp((logits[i] - largest) * scale) and returns their sum; with null `terms` only the sum.
  // `scale` is not negative, and no logit is above `largest`.
  double (*exponentials)(const float* logits, size_t n, float largest, float scale, float* terms);
  // running[b] = sum of the weights of blocks 0 to b; the last block may be short.
  void (*running_sums)(const float* weights, size_t n, double* running);
  // maxima[b] = the largest value of block b; the last block may be short.
  void (*block_maxima)(const float* values, size_t n, float* maxima);
  // logits[i] = -infinity and weights[i] = 0 where logits[i] < cut.
  void (*cut_below)(float* logits, float* weights, size_t n, float cut);
};

const ScanKernels& baseline_scan();
// Null on machines without AVX2.
const ScanKernels* avx2_scan();
const ScanKernels& widest_scan();

}  // namespace optserve::sampling

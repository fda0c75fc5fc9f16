// Passes over a whole vocabulary. They are compiled twice, for any machine and for AVX2 with FMA; the loops themselves
// are in scan_kernel.h.
#pragma once

#include <cstddef>

namespace optserve::sampling {

inline constexpr size_t kSumBlock = 512;  // weights added up before a running sum is noted
inline constexpr size_t kMaxBlock = 32;   // values that share one maximum

struct LogitRange {
  bool finite;    // no NaN, no infinity
  float largest;  // -infinity if there are none
};

struct ScanKernels {
  LogitRange (*range)(const float* logits, size_t n);
  // terms[i] = exp((logits[i] - largest) * scale) unless terms is null; returns their sum. scale >= 0, logits <=
  // largest.
  double (*exponentials)(const float* logits, size_t n, float largest, float scale, float* terms);
  // running[b] = sum of the weights of blocks 0 to b; the last block may be short.
  void (*running_sums)(const float* weights, size_t n, double* running);
  // maxima[b] = the largest value of block b; the last block may be short.
  void (*block_maxima)(const float* values, size_t n, float* maxima);
  // logits[i] = -infinity and weights[i] = 0 where logits[i] < cut.
  void (*cut_below)(float* logits, float* weights, size_t n, float cut);
};

const ScanKernels& baseline_scan();
// Null where this build or this machine has no AVX2 and FMA.
const ScanKernels* avx2_scan();
const ScanKernels& widest_scan();

}  // namespace optserve::sampling

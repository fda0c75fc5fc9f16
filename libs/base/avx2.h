// The one way to use AVX2 in a program that runs on any x86-64. A hot loop is written once, as an OPTSERVE_INLINE
// function, and compiled twice in one file; the choice is made when the program runs:
//   OPTSERVE_INLINE void scale(float* x, size_t n) { ... }
//   void scale_baseline(float* x, size_t n) { scale(x, n); }
//   OPTSERVE_AVX2 void scale_avx2(float* x, size_t n) { scale(x, n); }
//   ... (has_avx2() ? scale_avx2 : scale_baseline)(x, n);
// Everything that the loop calls must be OPTSERVE_INLINE too: a function that both share is compiled for any machine.
#pragma once

#define OPTSERVE_INLINE inline __attribute__((always_inline))
#if defined(__x86_64__)
#define OPTSERVE_AVX2 __attribute__((target("avx2,fma,f16c")))
#else
#define OPTSERVE_AVX2
#endif

namespace optserve {

// True if this machine can run OPTSERVE_AVX2 functions: it has AVX2, FMA and F16C.
bool has_avx2();

}  // namespace optserve

// The same kernels, compiled with AVX2, FMA and F16C. Nothing but the kernels may be instantiated here: the linker
// could otherwise give other code a copy that not every machine can run.
#include <cpuid.h>

#include "backend/cpu/attention_kernel.h"
#include "backend/cpu/linear_kernel.h"
#include "backend/cpu/norm_kernel.h"

namespace optserve::backend {

const CpuKernels* avx2_kernels() {
  static constexpr CpuKernels kKernels{linear_kernel<LoadF32>,  linear_kernel<LoadF16>,
                                       linear_kernel<LoadBF16>, linear_kernel<LoadInt8>,
                                       linear_kernel<LoadFp8>,  linear_kernel<LoadInt4>,
                                       attend_kernel<CellsF32>, attend_kernel<CellsInt8>,
                                       layer_norm_kernel,       add_kernel};
  unsigned a = 0, b = 0, c = 0, d = 0;  // __builtin_cpu_supports() does not know F16C everywhere
  const bool f16c = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
  return f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &kKernels : nullptr;
}

}  // namespace optserve::backend

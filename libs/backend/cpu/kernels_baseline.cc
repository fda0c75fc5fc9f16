// The kernels for any machine; compiled with the flags of the build.
#include "backend/cpu/attention_kernel.h"
#include "backend/cpu/linear_kernel.h"
#include "backend/cpu/norm_kernel.h"

namespace optserve::backend {

const CpuKernels& baseline_kernels() {
  static constexpr CpuKernels kKernels{linear_kernel<LoadF32>,  linear_kernel<LoadF16>,
                                       linear_kernel<LoadBF16>, linear_kernel<LoadInt8>,
                                       linear_kernel<LoadFp8>,  linear_kernel<LoadInt4>,
                                       attend_kernel<CellsF32>, attend_kernel<CellsInt8>,
                                       layer_norm_kernel,       add_kernel};
  return kKernels;
}

const CpuKernels& widest_kernels() {
  const CpuKernels* avx2 = avx2_kernels();
  return avx2 != nullptr ? *avx2 : baseline_kernels();
}

}  // namespace optserve::backend

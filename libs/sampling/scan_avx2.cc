// The same passes, compiled with AVX2 and FMA. Nothing else may be instantiated here: the linker could give other code
// a copy that not every machine can run.
#include "sampling/scan_kernel.h"

namespace optserve::sampling {

const ScanKernels* avx2_scan() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &kScanKernels : nullptr;
}

}  // namespace optserve::sampling

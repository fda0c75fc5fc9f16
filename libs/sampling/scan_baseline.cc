// The passes for any machine; compiled with the flags of the build.
#include "sampling/scan_kernel.h"

namespace optserve::sampling {

const ScanKernels& baseline_scan() { return kScanKernels; }

const ScanKernels& widest_scan() {
  const ScanKernels* avx2 = avx2_scan();
  return avx2 != nullptr ? *avx2 : baseline_scan();
}

}  // namespace optserve::sampling

// Stands in for scan_avx2.cc where the compiler does not target x86-64.
#include "sampling/scan.h"

namespace optserve::sampling {

const ScanKernels* avx2_scan() { return nullptr; }

}  // namespace optserve::sampling

// Stands in for kernels_avx2.cc where the compiler does not target x86-64.
#include "backend/cpu/kernels.h"

namespace optserve::backend {

const CpuKernels* avx2_kernels() { return nullptr; }

}  // namespace optserve::backend

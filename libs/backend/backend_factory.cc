#include "backend/backend.h"
#include "backend/cpu/cpu_backend.h"
#include "backend/cuda_factory.h"

namespace optserve::backend {

std::unique_ptr<Backend> make_backend(const BackendOptions& options) {
  switch (options.device.kind) {
    case DeviceKind::kCpu:
      return std::make_unique<CpuBackend>(options);
    case DeviceKind::kCuda:
      return make_cuda_backend(options);
  }
  check_failed("device kind without a backend", std::source_location::current());
}

}  // namespace optserve::backend

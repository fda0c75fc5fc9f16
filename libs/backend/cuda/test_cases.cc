#include "backend/backend_fixture.h"

namespace optserve {

std::vector<BackendCase> backends_under_test() {
  const auto cuda = [](DType dtype) {
    return BackendOptions{.device = {DeviceKind::kCuda, 0}, .compute_dtype = dtype};
  };
  return {{"cuda_fp32", cuda(DType::kF32)}, {"cuda_fp16", cuda(DType::kF16)}, {"cuda_bf16", cuda(DType::kBF16)}};
}

}  // namespace optserve

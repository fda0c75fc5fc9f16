#include "backend/backend_fixture.h"

namespace optserve::backend {

std::vector<BackendCase> backends_under_test() {
  const auto cuda = [](DType dtype) {
    return BackendOptions{.device = {DeviceKind::kCuda, 0}, .compute_dtype = dtype};
  };
  std::vector<BackendCase> cases{
      {"cuda_fp32", cuda(DType::kF32)}, {"cuda_fp16", cuda(DType::kF16)}, {"cuda_bf16", cuda(DType::kBF16)}};
  for (size_t i = 0; i < 3; ++i) {
    BackendCase invariant = cases[i];
    invariant.name += "_batch_invariant";
    invariant.options.batch_invariant = invariant.batch_invariant = true;
    cases.push_back(invariant);
  }
  return cases;
}

}  // namespace optserve::backend

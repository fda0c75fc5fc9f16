#include "backend/cuda_factory.h"
#include "base/error.h"

namespace optserve::backend {

std::unique_ptr<Backend> make_cuda_backend(const BackendOptions& options) {
  throw Error("this build has no CUDA backend; device cuda:" + std::to_string(options.device.index) +
              " needs one configured with OPTSERVE_CUDA=ON");
}

}  // namespace optserve::backend

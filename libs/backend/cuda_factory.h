// The interface to the part of this library that needs CUDA; one of two source files implements the function.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace optserve::backend {

// Throws Error when the device is absent or this build has no CUDA.
std::unique_ptr<Backend> make_cuda_backend(const BackendOptions& options);

}  // namespace optserve::backend

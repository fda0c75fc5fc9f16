// Turns the status codes of CUDA's libraries into Errors that name the call.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

namespace optserve::backend::cuda {

// Throws Error with `what` and the library's text unless the status is success.
void expect(cudaError_t status, const char* what);
void expect(cublasStatus_t status, const char* what);

}  // namespace optserve::backend::cuda

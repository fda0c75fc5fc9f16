// Owners of the handles of CUDA's libraries: each destroys what it holds, also when a constructor throws half way.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <utility>

#include "backend/cuda/cuda_check.h"

namespace optserve::backend::cuda {

// Converts to the raw handle. Empty until it is given one.
template <class Raw, auto kDestroy>
class Handle {
 public:
  Handle() = default;
  explicit Handle(Raw raw) : raw_(raw) {}
  ~Handle() {
    if (raw_ != nullptr) (void)kDestroy(raw_);
  }
  Handle(Handle&& other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(raw_, other.raw_);
    return *this;
  }

  operator Raw() const { return raw_; }  // NOLINT: reads as the handle in calls

 private:
  Raw raw_ = nullptr;
};

using Stream = Handle<cudaStream_t, cudaStreamDestroy>;
using Event = Handle<cudaEvent_t, cudaEventDestroy>;
using Graph = Handle<cudaGraph_t, cudaGraphDestroy>;
using GraphExec = Handle<cudaGraphExec_t, cudaGraphExecDestroy>;
using LtHandle = Handle<cublasLtHandle_t, cublasLtDestroy>;
using LtProduct = Handle<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using LtLayout = Handle<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using LtPreference = Handle<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

// These throw Error when CUDA refuses.
inline Stream make_stream() {
  cudaStream_t stream = nullptr;
  expect(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  return Stream(stream);
}
inline Event make_event() {
  cudaEvent_t event = nullptr;
  expect(cudaEventCreate(&event), "cudaEventCreate");
  return Event(event);
}
inline GraphExec instantiate(const Graph& graph) {
  cudaGraphExec_t exec = nullptr;
  expect(cudaGraphInstantiate(&exec, graph, 0), "cudaGraphInstantiate");
  return GraphExec(exec);
}
inline LtHandle make_lt_handle() {
  cublasLtHandle_t handle = nullptr;
  expect(cublasLtCreate(&handle), "cublasLtCreate");
  return LtHandle(handle);
}

}  // namespace optserve::backend::cuda

// The only place that asks CUDA for memory and gives it back.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <string>

#include "backend/cuda/cuda_check.h"
#include "base/error.h"
#include "tensor/buffer.h"

namespace optserve::backend::cuda {

// Memory of the current device, which `device` names. Throws Error with the sizes if there is no room. Never null.
inline Buffer device_buffer(size_t bytes, Device device) {
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, std::max<size_t>(bytes, 1));
  if (status == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    size_t free = 0, total = 0;
    expect(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    throw Error("no memory for " + std::to_string(bytes) + " bytes on cuda:" + std::to_string(device.index) + ": " +
                std::to_string(free) + " of " + std::to_string(total) + " are free");
  }
  expect(status, "cudaMalloc");
  return Buffer(data, bytes, device, [](void* freed) { (void)cudaFree(freed); });
}

// Page-locked host memory.
inline Buffer pinned_buffer(size_t bytes) {
  void* data = nullptr;
  expect(cudaMallocHost(&data, std::max<size_t>(bytes, 1)), "cudaMallocHost");
  return Buffer(data, bytes, Device{}, [](void* freed) { (void)cudaFreeHost(freed); });
}

}  // namespace optserve::backend::cuda

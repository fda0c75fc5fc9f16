// Programmatic dependent launch: a kernel becomes resident while the one before it in the stream still runs, which may
// itself be waiting for others. It is correct because (1) the wait returns when the whole previous grid has ended and
// its writes are visible; (2) that grid has waited as well, so every grid before it has ended too; (3) before
// wait_for_previous() a kernel only prefetches to L2, which changes no value, or loads weights, whose writers do not
// call allow_next(). Hence the rule: some thread of every block that is launched here calls wait_for_previous(), and
// all threads that load or store anything else call it before.
//
// One exception: a kernel F that calls allow_next() only after wait_for_previous() (or is launched without the
// attribute) lets nothing that comes after it begin before everything that comes before it has ended. Whatever comes
// after F may therefore load, before its own wait, what was written before F; it must bypass L1, which may hold older
// values. F is the first norm of a step, and decoding attention benefits. Data that other kernels write are never
// loaded with .nc (no __ldg), since the compiler may move such loads above a wait.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace optserve::kernels {

__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the next kernel become resident once every block of this one has called this; it still waits for this one's end.
__device__ __forceinline__ void allow_next() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Prefetches the cache line of `address`, which must lie in an allocation.
__device__ __forceinline__ void prefetch_line(const void* address) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(address)));
}

struct LaunchShape {
  dim3 grid;
  dim3 block;
  size_t shared_bytes = 0;
  unsigned cluster = 1;  // blocks of a cluster, which divides the grid
};

// Launches kKernel, and does so early if its code contains the wait, which is so for sm_90 and above. All GPUs of a
// process are of the same model.
template <auto kKernel, class... Arguments>
cudaError_t launch_dependent(const LaunchShape& shape, cudaStream_t stream, const Arguments&... arguments) {
  static const bool early = [] {
    cudaFuncAttributes attributes{};
    return cudaFuncGetAttributes(&attributes, kKernel) == cudaSuccess && attributes.ptxVersion >= 90;
  }();
  cudaLaunchAttribute attributes[2] = {};
  unsigned count = 0;
  if (early) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (shape.cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {shape.cluster, 1, 1};
  }
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = count;
  (void)cudaLaunchKernelEx(&config, kKernel, arguments...);
  return cudaGetLastError();
}

}  // namespace optserve::kernels

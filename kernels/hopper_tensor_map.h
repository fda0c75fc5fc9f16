// Descriptions of matrices for Hopper's copy engine. The driver makes them; its function is looked up at run time, so
// that nothing here links with the driver.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace optserve::kernels {

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

// Null if the driver has no such function.
inline EncodeTiled encode_tiled() {
  static const EncodeTiled function = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result{};
    const cudaError_t error =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result);
    return error == cudaSuccess && result == cudaDriverEntryPointSuccess ? reinterpret_cast<EncodeTiled>(found)
                                                                         : nullptr;
  }();
  return function;
}

// [rows, columns] halves, rows `stride` of them apart, as boxes of `box_rows` rows of 64 columns in the 128-byte
// swizzle; what lies outside reads as zero.
inline bool make_half_map(const void* x, const int64_t (&shape)[2], int64_t stride, int box_rows, CUtensorMap& map) {
  if (encode_tiled() == nullptr) return false;
  constexpr cuuint32_t kColumns = 64;
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(shape[1]), static_cast<cuuint64_t>(shape[0])};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(stride) * 2};
  const cuuint32_t box[] = {kColumns, static_cast<cuuint32_t>(box_rows)}, steps[] = {1, 1};
  return encode_tiled()(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, const_cast<void*>(x), sizes, strides, box, steps,
                        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

}  // namespace optserve::kernels

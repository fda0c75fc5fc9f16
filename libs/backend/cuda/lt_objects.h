// The descriptors that calls of cuBLASLt need.
#pragma once

#include <cublasLt.h>

#include "backend/cuda/cuda_check.h"
#include "backend/cuda/cuda_handles.h"

namespace optserve::backend::cuda {

inline constexpr size_t kWorkspaceBytes = 64 << 20;

inline LtLayout make_layout(cudaDataType_t type, int64_t rows, int64_t cols, int64_t stride) {
  cublasLtMatrixLayout_t layout = nullptr;
  expect(cublasLtMatrixLayoutCreate(&layout, type, static_cast<uint64_t>(rows), static_cast<uint64_t>(cols), stride),
         "cublasLtMatrixLayoutCreate");
  return LtLayout(layout);
}

inline LtProduct make_product() {
  cublasLtMatmulDesc_t product = nullptr;
  expect(cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
  return LtProduct(product);
}

inline LtPreference make_preference() {
  cublasLtMatmulPreference_t preference = nullptr;
  expect(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
  return LtPreference(preference);
}

inline cublasLtEpilogue_t epilogue_of(bool has_bias, bool relu) {
  if (has_bias) return relu ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_BIAS;
  return relu ? CUBLASLT_EPILOGUE_RELU : CUBLASLT_EPILOGUE_DEFAULT;
}

}  // namespace optserve::backend::cuda

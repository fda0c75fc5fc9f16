// Products of fp8 weights with x rounded to fp8, by cuBLASLt; each row of either has a scale.
#include <array>

#include "backend/cuda/linear_tuner.h"
#include "backend/cuda/lt_objects.h"
#include "kernels/byte_rows.h"

namespace optserve::backend::cuda {
namespace {

using Way = LinearChoice::Way;

constexpr int64_t kByteRowsMin = 33;  // with fewer rows, the time to read the weights dominates
constexpr int kByteCandidates = 8;
constexpr size_t kByteAlignment = 16;

kernels::ByteRowsArgs byte_rows_args(const LinearCall& call) {
  const size_t code_bytes =
      (static_cast<size_t>(call.rows * call.in) + kByteAlignment - 1) / kByteAlignment * kByteAlignment;
  return {.element = call.element,
          .x = call.x,
          .x_stride = call.x_stride,
          .rows = call.rows,
          .in = call.in,
          .codes = call.byte_room,
          .scales = reinterpret_cast<float*>(static_cast<std::byte*>(call.byte_room) + code_bytes)};
}

// Like LinearTuner::Layouts, with scales. The "fast" accumulation is not used, since it would lose bits of the sums.
struct ByteLayouts {
  LtProduct product = make_product();
  LtLayout weight, x, y;

  ByteLayouts(const LinearCall& call, const float* x_scales) {
    const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value) {
      expect(cublasLtMatmulDescSetAttribute(product, attribute, &value, sizeof value),
             "cublasLtMatmulDescSetAttribute");
    };
    set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_of(call.bias != nullptr, call.relu));
    if (call.bias != nullptr) {
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, call.bias);
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<int32_t>(CUDA_R_16F));
    }
    constexpr int32_t kEachRow = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, kEachRow);
    set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, kEachRow);
    set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, static_cast<const void*>(call.scales));
    set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, static_cast<const void*>(x_scales));
    set(CUBLASLT_MATMUL_DESC_FAST_ACCUM, int8_t{0});
    weight = make_layout(CUDA_R_8F_E4M3, call.in, call.out, call.in);
    x = make_layout(CUDA_R_8F_E4M3, call.in, call.rows, call.in);
    y = make_layout(CUDA_R_16F, call.out, call.rows, call.y_stride);
  }
};

bool can_bytes(const LinearCall& call) {
  return call.row_major != nullptr && call.rows >= kByteRowsMin && call.element == kernels::Element::kF16 &&
         !call.out_f32 && call.out % 16 == 0 && call.y_stride % 8 == 0 &&
         reinterpret_cast<uintptr_t>(call.y) % kByteAlignment == 0 && kernels::can_byte_rows(byte_rows_args(call));
}

}  // namespace

std::vector<LinearTuner::Choice> LinearTuner::byte_candidates(const LinearCall& call) const {
  if (!can_bytes(call)) return {};
  const ByteLayouts layouts(call, byte_rows_args(call).scales);
  const LtPreference preference = make_preference();
  expect(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspaceBytes,
                                              sizeof kWorkspaceBytes),
         "cublasLtMatmulPreferenceSetAttribute");
  std::array<cublasLtMatmulHeuristicResult_t, kByteCandidates> found;
  int count = 0;  // 0 on GPUs and with versions that do not support such scales
  if (cublasLtMatmulAlgoGetHeuristic(handle_, layouts.product, layouts.weight, layouts.x, layouts.y, layouts.y,
                                     preference, kByteCandidates, found.data(), &count) != CUBLAS_STATUS_SUCCESS) {
    return {};
  }
  std::vector<Choice> choices;
  for (int i = 0; i < count; ++i) {
    const auto& result = found[static_cast<size_t>(i)];
    if (result.state == CUBLAS_STATUS_SUCCESS) choices.push_back({.way = Way::kBytes, .algorithm = result.algo});
  }
  return choices;
}

bool LinearTuner::try_bytes(const LinearCall& call, const Choice& choice) const {
  if (!can_bytes(call)) return false;
  const kernels::ByteRowsArgs x = byte_rows_args(call);
  expect(kernels::byte_rows(x, stream_), "byte_rows");
  const ByteLayouts layouts(call, x.scales);
  const float one = 1, zero = 0;
  return cublasLtMatmul(handle_, layouts.product, &one, call.row_major, layouts.weight, x.codes, layouts.x, &zero,
                        call.y, layouts.y, call.y, layouts.y, &choice.algorithm, workspace_.data(), kWorkspaceBytes,
                        stream_) == CUBLAS_STATUS_SUCCESS;
}

}  // namespace optserve::backend::cuda

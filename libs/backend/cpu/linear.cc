#include <cblas.h>

#include <algorithm>

#include "backend/cpu/cpu_backend.h"
#include "tensor/shape_check.h"

namespace optserve {
namespace {

void finish_row(float* row, int64_t width, const float* bias, Activation activation) {
  if (bias != nullptr) {
    for (int64_t i = 0; i < width; ++i) row[i] += bias[i];
  }
  if (activation == Activation::kRelu) {
    for (int64_t i = 0; i < width; ++i) row[i] = std::max(row[i], 0.0f);
  }
}

}  // namespace

Weight CpuBackend::load_weight(const void* source, DType source_dtype, int64_t out, int64_t in) {
  Weight weight{QuantFormat::kF32, out, in, allocate(static_cast<size_t>(out * in) * sizeof(float))};
  tensor::convert_to_f32(source, source_dtype, static_cast<float*>(weight.values.data()),
                         static_cast<size_t>(out * in));
  return weight;
}

void CpuBackend::linear(const Tensor& x, const Weight& weight, const Tensor& bias, Activation activation, Tensor out) {
  ShapeCheck shapes("linear");
  shapes.bind("in", weight.in).bind("out", weight.out);
  shapes.expect("x", x, DType::kF32, {"num_tokens", "in"});
  shapes.expect("out", out, DType::kF32, {"num_tokens", "out"});
  if (!bias.empty()) shapes.expect("bias", bias, DType::kF32, {"out"});
  const auto m = static_cast<blasint>(shapes["num_tokens"]);
  if (m == 0) return;
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, static_cast<blasint>(weight.out),
              static_cast<blasint>(weight.in), 1.0f, x.data<float>(), static_cast<blasint>(x.row_stride()),
              static_cast<const float*>(weight.values.data()), static_cast<blasint>(weight.in), 0.0f, out.data<float>(),
              static_cast<blasint>(out.row_stride()));
  const float* bias_data = bias.empty() ? nullptr : bias.data<float>();
  for (int64_t i = 0; i < m; ++i) finish_row(out.row<float>(i), weight.out, bias_data, activation);
}

}  // namespace optserve

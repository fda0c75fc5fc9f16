#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/weight_format.h"
#include "tensor/shape_check.h"

namespace optserve {

void CudaBackend::linear(const Tensor& x, const Weight& weight, const Tensor& bias, Activation activation, Tensor out) {
  ShapeCheck shapes("linear");
  shapes.bind("in", weight.in).bind("out", weight.out);
  shapes.expect("x", x, compute_dtype_, {"num_tokens", "in"});
  shapes.expect("out", out, out.dtype() == DType::kF32 ? DType::kF32 : compute_dtype_, {"num_tokens", "out"});
  if (!bias.empty()) shapes.expect("bias", bias, compute_dtype_, {"out"});
  const cuda::LinearCall call{
      .element = element(),
      .out_f32 = out.dtype() == DType::kF32,
      .relu = activation == Activation::kRelu,
      .x = x.raw(),
      .x_stride = x.row_stride(),
      .format = cuda::weight_format(weight.format),
      .weight = weight.values.data(),
      .scales = static_cast<const float*>(weight.scales.data()),
      .bias = bias.raw(),
      .y = out.raw(),
      .y_stride = out.row_stride(),
      .rows = shapes["num_tokens"],
      .in = weight.in,
      .out = weight.out,
  };
  tuner_->run(call, !capturing_);
}

}  // namespace optserve

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/weight_format.h"

namespace optserve {

void CudaBackend::do_linear(const Tensor& x, const Weight& weight, const Tensor& bias, Activation activation,
                            Tensor out) {
  if (bias.empty() && activation == Activation::kNone && try_relu_skip(x, weight, out)) return;
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
      .rows = x.dim(0),
      .in = weight.in,
      .out = weight.out,
  };
  tuner_->run(call, !capturing_);
}

}  // namespace optserve

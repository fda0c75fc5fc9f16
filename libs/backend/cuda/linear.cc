#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/kernel_names.h"
#include "kernels/elementwise.h"

namespace optserve::backend {

void CudaBackend::do_linear(const Tensor& x, const quant::Weight& weight, const Tensor& bias, Activation activation,
                            Tensor out) {
  if (bias.empty() && activation == Activation::kNone && try_relu_skip(x, weight, out)) return;
  cuda::LinearCall call{
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
  if (weight.row_major.data() != nullptr) {
    const size_t room = static_cast<size_t>(call.rows * call.in) + 16 + static_cast<size_t>(call.rows) * sizeof(float);
    call.row_major = weight.row_major.data();
    call.byte_room = byte_scratch_.at_least(*this, room);
  }
  tuner_->run(call, !capturing_);
  if (activation != Activation::kGelu) return;
  // cuBLASLt's own GELU is the approximation by tanh.
  cuda::expect(kernels::gelu({.element = call.out_f32 ? kernels::Element::kF32 : call.element,
                              .x = call.y,
                              .stride = call.y_stride,
                              .num_rows = call.rows,
                              .width = call.out},
                             stream_),
               "gelu");
}

}  // namespace optserve::backend

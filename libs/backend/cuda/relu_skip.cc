// Products after a ReLU that skip the weights that are multiplied by zeros.
#include "backend/cuda/cuda_backend.h"
#include "kernels/relu_skip_linear.h"

namespace optserve::backend {

using cuda::expect;

namespace {

kernels::ReluSkipArgs skip_args(kernels::Element element, const Tensor& x, const quant::Weight& weight,
                                const Tensor& out) {
  return {.element = element,
          .x = x.raw(),
          .x_stride = x.row_stride(),
          .by_input = weight.by_input.data(),
          .scales = static_cast<const float*>(weight.scales.data()),
          .y = out.raw(),
          .y_stride = out.row_stride(),
          .rows = x.dim(0),
          .in = weight.in,
          .out = weight.out};
}

}  // namespace

bool CudaBackend::keeps_by_input(quant::QuantFormat format, int64_t out, int64_t in) const {
  if (relu_skip_ == ReluSkip::kOff || (!is_plain(format) && format != quant::QuantFormat::kInt8)) return false;
  const kernels::ReluSkipArgs one_row{.element = element(), .x_stride = in, .rows = 1, .in = in, .out = out};
  return kernels::can_relu_skip(one_row, limits_);
}

size_t CudaBackend::sparse_input_bytes(quant::QuantFormat format, int64_t out, int64_t in) const {
  if (!keeps_by_input(format, out, in)) return 0;
  return static_cast<size_t>(out * in) * (is_plain(format) ? dtype_bytes(compute_dtype_) : 1);
}

void CudaBackend::prepare_sparse_input(quant::Weight& weight) {
  const size_t bytes = sparse_input_bytes(weight.format, weight.out, weight.in);
  if (bytes == 0) return;
  weight.by_input = allocate(bytes);
  const auto order = is_plain(weight.format) ? kernels::order_by_input : kernels::order_codes_by_input;
  expect(order(weight.values.data(), weight.out, weight.in, weight.by_input.data(), stream_), "order_by_input");
  (void)skip_scratch_.at_least(*this, kernels::relu_skip_scratch_bytes(limits_));
}

bool CudaBackend::try_relu_skip(const Tensor& x, const quant::Weight& weight, Tensor out) {
  if (weight.by_input.data() == nullptr || out.dtype() != compute_dtype_) return false;
  const kernels::ReluSkipArgs args = skip_args(element(), x, weight, out);
  if (!kernels::can_relu_skip(args, limits_)) return false;
  can_skip_ = true;
  if (!skipping_) return false;
  expect(kernels::relu_skip_linear(args, skip_scratch_.buffer.data(), limits_, stream_), "relu_skip_linear");
  return true;
}

}  // namespace optserve::backend

// y = activation(scale * (x W^T) + bias) for few rows and quantised W, where the time to read W dominates. The codes
// are multiplied exactly, products and sums are in fp32, sums are multiplied by the scales, and the result is rounded
// once. It is deterministic: a row's bits depend on (format, in, out) and the class of row counts alone. Launches on
// `stream`, allocates nothing, can be captured into a graph.
#pragma once

#include "kernels/device_limits.h"
#include "kernels/element.h"
#include "kernels/quantised.h"

namespace optserve::kernels {

struct QuantisedLinearArgs {
  WeightFormat format = WeightFormat::kInt8;
  Element element = Element::kF16;  // of x and bias: kF16 or kBF16
  bool out_f32 = false;             // y in fp32 instead of `element`
  bool relu = false;
  const void* x = nullptr;  // [rows, in], rows `x_stride` elements apart
  int64_t x_stride = 0;
  const void* values =
      nullptr;  // packed (quantised.h); it, scales and bias may be read before the previous kernel has ended
  const float* scales = nullptr;  // packed
  const void* bias = nullptr;     // [out], or null
  void* y = nullptr;              // [rows, out], rows `y_stride` elements apart
  int64_t y_stride = 0;
  int64_t rows = 0, in = 0, out = 0;
};

inline constexpr int64_t kQuantisedRowsMax = 16;
// Whether quantised_linear() accepts this call: element, rows, alignment, shared memory.
bool can_quantised_linear(const QuantisedLinearArgs& args, const DeviceLimits& device);
cudaError_t quantised_linear(const QuantisedLinearArgs& args, const DeviceLimits& device, cudaStream_t stream);

}  // namespace optserve::kernels

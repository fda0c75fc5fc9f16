// y = activation(x W^T + bias) for a few rows, where the time to read W dominates. W is [out, in] row-major, as in
// files. Products and sums are in fp32, with one rounding at the end. It is deterministic: a row's bits depend on (in,
// out, rows) alone. Launches on `stream`, allocates nothing, can be captured into a graph.
#pragma once

#include "kernels/device_limits.h"
#include "kernels/element.h"

namespace optserve::kernels {

struct SkinnyLinearArgs {
  Element element = Element::kF16;  // of x, weight and bias: kF16 or kBF16
  bool out_f32 = false;             // y in fp32 instead of `element`
  bool relu = false;
  const void* x = nullptr;  // [rows, in], rows `x_stride` elements apart
  int64_t x_stride = 0;
  const void* weight = nullptr;  // [out, in]; it may be read before the previous kernel has ended
  const void* bias = nullptr;    // [out], or null
  void* y = nullptr;             // [rows, out], rows `y_stride` elements apart
  int64_t y_stride = 0;
  int64_t rows = 0, in = 0, out = 0;
};

inline constexpr int64_t kSkinnyRowsMax = 8;
// Whether skinny_linear() accepts this call: element, rows, alignment, shared memory.
bool can_skinny_linear(const SkinnyLinearArgs& args, const DeviceLimits& device);
cudaError_t skinny_linear(const SkinnyLinearArgs& args, const DeviceLimits& device, cudaStream_t stream);

}  // namespace optserve::kernels

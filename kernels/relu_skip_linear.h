// y = x W^T for a few rows of x that are mostly zeros, as they are after a ReLU. W is stored by input, [in, out], so
// that the weights of one input are contiguous, and only those of inputs that are nonzero in some row are read. The
// terms left out are zeros wherever W is finite, so the result is that of the whole product.
//
// Deterministic: which terms are added, and in which order, depends on x and the shapes alone. A row's bits do depend
// on the other rows, whose nonzero elements decide which inputs are read. Products and sums are in fp32, with one
// rounding at the end. Launches on `stream`, allocates nothing, can be captured into a graph.
#pragma once

#include <cstddef>

#include "kernels/device_limits.h"
#include "kernels/element.h"

namespace optserve::kernels {

struct ReluSkipArgs {
  Element element = Element::kF16;  // of x and y: kF16 or kBF16
  const void* x = nullptr;          // [rows, in], rows `x_stride` elements apart
  int64_t x_stride = 0;
  const void* by_input = nullptr;  // [in, out] of `element`; or int8 codes if there are scales
  const float* scales = nullptr;   // [out], or null
  void* y = nullptr;               // [rows, out], rows `y_stride` elements apart
  int64_t y_stride = 0;
  int64_t rows = 0, in = 0, out = 0;
};

inline constexpr int64_t kReluSkipRowsMax = 8;
// Whether relu_skip_linear() accepts this call: element, rows, alignment, shared memory.
bool can_relu_skip(const ReluSkipArgs& args, const DeviceLimits& device);
// `scratch` has relu_skip_scratch_bytes(), is filled with zeros once before the first call, and is then used by these
// calls alone.
cudaError_t relu_skip_linear(const ReluSkipArgs& args, void* scratch, const DeviceLimits& device, cudaStream_t stream);
size_t relu_skip_scratch_bytes(const DeviceLimits& device);

// Convert W from the order that other products read to that of by_input: 16-bit elements from row-major [out, in], or
// int8 codes from their packed order (kernels/quantised.h).
cudaError_t order_by_input(const void* row_major, int64_t out, int64_t in, void* by_input, cudaStream_t stream);
cudaError_t order_codes_by_input(const void* packed, int64_t out, int64_t in, void* by_input, cudaStream_t stream);

}  // namespace optserve::kernels

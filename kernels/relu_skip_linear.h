// y = x W^T for a few rows of x that are mostly zeros, as behind a ReLU. W is kept by input, [in, out], so that what
// one element of x multiplies is one piece of memory: only pieces whose element is not zero in every row are read. What
// is left out is a sum of zeros, so the result is that of the whole product wherever W is finite.
//
// Deterministic: which terms are added, and in which order, depends on x and the shapes alone. It does depend on the
// other rows, whose elements add to what is read. Products and sums in fp32, one rounding at the end. Launches on
// `stream`, allocates nothing, can be captured into a graph.
#pragma once

#include <cstddef>

#include "kernels/device_limits.h"
#include "kernels/element.h"

namespace optserve::kernels {

struct ReluSkipArgs {
  Element element = Element::kF16;  // of x and y: kF16 or kBF16
  const void* x = nullptr;          // [rows, in], rows `x_stride` elements apart
  int64_t x_stride = 0;
  const void* by_input = nullptr;  // [in, out] of `element`; or int8 codes where there are scales
  const float* scales = nullptr;   // [out], or null
  void* y = nullptr;               // [rows, out], rows `y_stride` elements apart
  int64_t y_stride = 0;
  int64_t rows = 0, in = 0, out = 0;
};

inline constexpr int64_t kReluSkipRowsMax = 8;
// Whether relu_skip_linear() takes this call: element, rows, alignment, shared memory.
bool can_relu_skip(const ReluSkipArgs& args, const DeviceLimits& device);
// `scratch`: relu_skip_scratch_bytes(), zero-filled once before the first call and then left to these calls.
cudaError_t relu_skip_linear(const ReluSkipArgs& args, void* scratch, const DeviceLimits& device, cudaStream_t stream);
size_t relu_skip_scratch_bytes(const DeviceLimits& device);

// From W as other products read it to by_input: 16-bit elements of row-major [out, in], or int8 codes from their packed
// order (kernels/quantised.h).
cudaError_t order_by_input(const void* row_major, int64_t out, int64_t in, void* by_input, cudaStream_t stream);
cudaError_t order_codes_by_input(const void* packed, int64_t out, int64_t in, void* by_input, cudaStream_t stream);

}  // namespace optserve::kernels

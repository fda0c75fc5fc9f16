// Activations rounded to fp8, for products with fp8 weights.
#pragma once

#include "kernels/element.h"

namespace optserve::kernels {

// scales[r] = the largest magnitude of row r of x, divided by 448, or 1 for a row of zeros; codes = the e4m3 nearest to
// x / scale. A NaN or an infinity in a row makes sums with it NaN. Launches on `stream`, allocates nothing, can be
// captured into a graph.
struct ByteRowsArgs {
  Element element = Element::kF16;  // kF16 or kBF16
  const void* x = nullptr;          // [rows, in], rows `x_stride` elements apart
  int64_t x_stride = 0;
  int64_t rows = 0, in = 0;
  void* codes = nullptr;    // [rows, in]
  float* scales = nullptr;  // [rows]
};

// Whether byte_rows() takes this call: element, `in` a multiple of 16, alignment.
bool can_byte_rows(const ByteRowsArgs& args);
cudaError_t byte_rows(const ByteRowsArgs& args, cudaStream_t stream);

}  // namespace optserve::kernels

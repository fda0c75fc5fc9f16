// A matrix of a linear layer, as files hold it and as a backend keeps it.
#pragma once

#include "quant/quant_format.h"
#include "tensor/buffer.h"

namespace optserve::quant {

// [out, in] in host memory, row-major, as in shards (quant/quantise.h). It does not own the memory.
struct StoredMatrix {
  QuantFormat format = QuantFormat::kF32;
  int64_t out = 0;  // rows
  int64_t in = 0;   // columns
  const void* values = nullptr;
  const float* scales = nullptr;  // [out, scales_per_row]; null if the format has none
};

// A matrix on the device. Only backends look inside; values and scales are in the order that the backend prefers.
struct Weight {
  QuantFormat format = QuantFormat::kF32;  // of what is kept, which may be wider than what was loaded
  int64_t out = 0;
  int64_t in = 0;
  Buffer values;
  Buffer scales{};     // F32; empty if the format has none
  Buffer row_major{};  // the values once more, in row-major order, if the device also multiplies them in this form
  Buffer by_input{};   // the values once more as [in, out], if prepare_sparse_input() has made them

  bool empty() const { return values.data() == nullptr; }
};

}  // namespace optserve::quant

// A matrix of a linear layer in whatever format it is stored; only backends look inside.
#pragma once

#include "quant/quant_format.h"
#include "tensor/buffer.h"

namespace optserve {

struct Weight {
  QuantFormat format = QuantFormat::kF32;
  int64_t out = 0;  // rows
  int64_t in = 0;   // columns
  Buffer values;    // [out, in] in `format`, in the order of elements that the loading backend prefers

  bool empty() const { return values.data() == nullptr; }
};

}  // namespace optserve

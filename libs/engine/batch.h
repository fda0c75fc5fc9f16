// The packed tokens of one step on the device.
#pragma once

#include "backend/backend.h"

namespace optserve::engine {

struct Batch {
  int64_t num_tokens = 0;
  Tensor ids;        // I32[num_tokens]
  Tensor positions;  // I32[num_tokens]
  AttentionBatch attention;
};

}  // namespace optserve::engine

// How a rank's device memory is shared out, as arithmetic: weights and workspace have their sizes, the KV cache takes
// what is left.
#pragma once

#include <cstdint>
#include <string>

#include "backend/backend.h"
#include "base/error.h"
#include "engine/weight_source.h"
#include "model_spec/opt_config.h"

namespace optserve::engine {

struct MemoryNeeds {
  uint64_t weights = 0;
  uint64_t workspace = 0;  // temporaries and arrays of a step
  uint64_t kv_block = 0;   // one KV block of every layer
};

// Bytes that `backend` keeps of a rank's blocks of all tensors: quantised matrices as it keeps them, all else in its
// compute type.
uint64_t weight_bytes(const WeightSource& source, int world, const backend::Backend& backend);
// `kv_dtype`: of the cells; those of I8 have an F32 scale for each token and head.
uint64_t kv_block_bytes(const model_spec::OptConfig& config, int64_t world, DType kv_dtype);

// KV blocks that fit when at most `fraction` of the memory may be in use, at most `most`. Refused with the whole
// arithmetic if there is no room for `least`.
Result<int32_t> plan_kv_blocks(const MemoryNeeds& needs, const backend::DeviceMemory& memory, double fraction,
                               int64_t least, int64_t most);
// "weights 12.4 GiB, workspace 0.31 GiB, KV cache 60.2 GiB (7890 blocks of 8.0 MiB), free 79.1 of 79.6 GiB, limit 92%"
std::string describe(const MemoryNeeds& needs, const backend::DeviceMemory& memory, double fraction, int64_t blocks);

}  // namespace optserve::engine

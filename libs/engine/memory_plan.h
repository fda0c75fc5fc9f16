// The arithmetic by which a rank's device memory is divided: weights and workspace have fixed sizes, and the KV cache
// gets what is left.
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

// The bytes in which `backend` keeps a rank's blocks of all tensors: quantised matrices in its own form, everything
// else in its compute type.
uint64_t weight_bytes(const WeightSource& source, int world, const backend::Backend& backend);
// `kv_dtype` is the type of the cells; I8 cells have an F32 scale for each token and head.
uint64_t kv_block_bytes(const model_spec::OptConfig& config, int64_t world, DType kv_dtype);

// The number of KV blocks that fit if at most `fraction` of the memory may be in use, but at most `most`. If there is
// no room for `least`, the refusal shows the whole arithmetic.
Result<int32_t> plan_kv_blocks(const MemoryNeeds& needs, const backend::DeviceMemory& memory, double fraction,
                               int64_t least, int64_t most);
// "weights 12.4 GiB, workspace 0.31 GiB, KV cache 60.2 GiB (7890 blocks of 8.0 MiB), free 79.1 of 79.6 GiB, limit 92%"
std::string describe(const MemoryNeeds& needs, const backend::DeviceMemory& memory, double fraction, int64_t blocks);

}  // namespace optserve::engine

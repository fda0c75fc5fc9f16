// Small random OPT models of every published kind, in memory or as a sharded checkpoint.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace optserve::test_support {

// One model for each kind that exists: head sizes 64, 80 and 128 with norms before the blocks, and 350M's norms after
// them with embedding projections. Two to three layers, four heads, a vocabulary with padding rows.
std::vector<model_spec::OptConfig> tiny_configs();

// The weights of the random source (seeded) as a checkpoint of `shards` shards in `dtype`. Throws Error.
void write_random_checkpoint(const std::string& folder, const model_spec::OptConfig& config, uint64_t seed, DType dtype,
                             int shards);

}  // namespace optserve::test_support

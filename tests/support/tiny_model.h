// Small random OPT models of every published kind, in memory or as a sharded checkpoint.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace optserve::test_support {

// One model of each kind: head sizes 64, 80 and 128 with norms before the blocks; norms after them and projections of
// the embedding, as OPT-350M has them; and an output matrix of its own. Two or three layers, four heads, a vocabulary
// with padding rows.
std::vector<model_spec::OptConfig> tiny_configs();

// Writes seeded random weights as a checkpoint of `shards` shards in `dtype`. Throws Error.
void write_random_checkpoint(const std::string& folder, const model_spec::OptConfig& config, uint64_t seed, DType dtype,
                             int shards);

}  // namespace optserve::test_support

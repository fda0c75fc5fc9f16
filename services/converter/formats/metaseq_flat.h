// Weights that FSDP flattened into one vector per wrapped module, possibly cut over shards.
#pragma once

#include <cstdint>
#include <vector>

#include "converter/formats/foreign_checkpoint.h"

namespace optserve::converter {

// Whether the model dictionary of a file holds flattened tensors.
bool is_flattened(const checkpoint::PtFile& file);

// Replaces the flattened tensors of one part's shards ("flat_param_0", "decoder.layers.3.flat_param_0") by the tensors
// they hold: by `shard_metadata` where the files have it, else by the order in which Metaseq flattens. `parts` is the
// number of model-parallel parts.
Result<ForeignPart> unflatten(const std::vector<checkpoint::PtFile*>& shards, int64_t parts);

}  // namespace optserve::converter

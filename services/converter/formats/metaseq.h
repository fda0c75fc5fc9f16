// Metaseq checkpoints: model-parallel parts, whole or as FSDP shards, with named or flattened weights.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "converter/formats/foreign_checkpoint.h"

namespace optserve::converter {

// One file's place in a set: "X-model_part-1-shard3.pt" is part 1, shard 3 of stem "X".
struct MetaseqFile {
  std::string path;
  std::string stem;
  int64_t part = 0;
  int64_t shard = 0;
};
// Accepts X.pt, X-model_part-J.pt, X-model_part-J-shardK.pt, X-shardK.pt and X.pt-model_part-J.pt; nullopt for other
// names.
std::optional<MetaseqFile> parse_metaseq_name(const std::string& path);

// Opens the files of one checkpoint. Refuses files of several stems, and sets with gaps or duplicates.
Result<ForeignCheckpoint> open_metaseq(const std::vector<std::string>& paths);

}  // namespace optserve::converter

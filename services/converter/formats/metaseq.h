// Metaseq checkpoints: model-parallel parts, whole or as FSDP shards, with named or flattened weights.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "converter/formats/foreign_model.h"

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

// Opens the files of one checkpoint; refuses sets with several stems, with gaps or with duplicates.
Result<ForeignCheckpoint> open_metaseq(const std::vector<std::string>& paths);

// Replaces the flat tensors of one part's shards ("flat_param_0", "decoder.layers.3.flat_param_0") by the tensors they
// hold, by `shard_metadata` where the files have it, else by the order in which Metaseq flattens. `parts` is the number
// of model-parallel parts.
Result<ForeignPart> unflatten(const std::vector<checkpoint::PtFile*>& shards, int64_t parts);
// True if the model dictionary of a file holds flat tensors.
bool is_flattened(const checkpoint::PtFile& file);

// A setting of the training configuration: cfg.<section>.<key>, else args.<key>. Namespaces, dictionaries and omegaconf
// containers are understood.
std::optional<checkpoint::ValueId> find_setting(const checkpoint::PickleDocument& document, std::string_view section,
                                                std::string_view key);
std::optional<int64_t> integer_setting(const checkpoint::PickleDocument& document, std::string_view section,
                                       std::string_view key);

}  // namespace optserve::converter

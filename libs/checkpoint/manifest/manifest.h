// manifest.json: what a sharded checkpoint holds. It is written last, so a folder with a valid manifest is complete.
// docs/checkpoint_format.md explains every key.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "checkpoint/manifest/layout.h"
#include "model_spec/opt_config.h"
#include "quant/quant_format.h"
#include "tensor/dtype.h"

namespace optserve::checkpoint {

inline constexpr std::string_view kManifestName = "manifest.json";
inline constexpr std::string_view kFormatName = "optserve-checkpoint";
inline constexpr int kFormatVersion = 1;
inline constexpr uint64_t kManifestBytesMax = 4 << 20;
inline constexpr std::string_view kVocabName = "gpt2-vocab.json";
inline constexpr std::string_view kMergesName = "gpt2-merges.txt";
inline constexpr std::string_view kAddedName = "added-tokens.json";

struct FileEntry {
  std::string name;  // in the folder; [A-Za-z0-9._-]+, no leading dot
  uint64_t bytes = 0;
  std::string sha256;  // 64 lower-case hex digits
};

// Where the weights came from. This is for people; nothing depends on it.
struct SourceFile {
  std::string name;  // without folders
  uint64_t bytes = 0;
  std::string index_sha256;  // of the part of the file that lists its tensors and their checksums; may be empty
};
// What was done to the weights before they were rounded: input channels were scaled to similar magnitudes, according to
// measured ranges.
struct Smoothing {
  double alpha = 0.5;         // 0 to 1: how much of an input's magnitude goes into the weights
  std::string ranges_sha256;  // of the file of ranges
  bool operator==(const Smoothing&) const = default;
};
struct SourceInfo {
  std::string layout;  // "metaseq model-parallel parts (2)"
  std::vector<SourceFile> files;
  std::optional<Smoothing> smoothing{};
};

struct Manifest {
  model_spec::OptConfig config;
  DType dtype = DType::kF16;                        // of every tensor that is not quantised: F32, F16 or BF16
  std::optional<quant::Quantisation> quantisation;  // of the large matrices of the layers
  int shards = 1;                                   // S: the folder serves any group size that divides it
  std::string vocab_file;                           // kVocabName, or empty when the folder has no tokenizer
  std::string merges_file;                          // kMergesName, or empty
  std::string added_file;                           // kAddedName, or empty when no tokens were added to the vocabulary
  std::vector<FileEntry> files;  // every file but the manifest: S shards in order, then the tokenizer's
  SourceInfo source;
  std::string created_by;  // "optserve 0.1.0"
};

ShardPlan shard_plan(const Manifest& manifest);

// "shard-000-of-008.safetensors"
std::string shard_file_name(int shard, int shards);

std::string manifest_text(const Manifest& manifest);
// Strict: unknown, missing, duplicate or ill-typed keys are refused; so are another format version and unsafe names.
Result<Manifest> parse_manifest(std::string_view text);

}  // namespace optserve::checkpoint

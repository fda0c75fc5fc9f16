// What two processes compare before they work on one model: digests of a sharded checkpoint's manifest and vocabulary.
// Reads only the manifest; whoever needs the weights uses CheckpointReader.
#pragma once

#include <string>

#include "base/error.h"
#include "checkpoint/manifest/manifest.h"

namespace optserve::checkpoint {

struct ModelIdentity {
  Manifest manifest;
  std::string manifest_digest;    // SHA-256 (hex) of manifest.json
  std::string vocabulary_digest;  // empty when the folder has no tokenizer
};

// Refuses a folder without a valid manifest; throws Error if it cannot be read.
Result<ModelIdentity> read_model_identity(const std::string& folder);

// SHA-256 (hex) over the line "NAME SIZE SHA256\n" of the vocabulary, the merges and the added tokens, as the
// manifest lists them: equal only for the same files. Empty when the manifest lists no tokenizer.
std::string vocabulary_digest(const Manifest& manifest);

// Reads one of the files that the manifest lists, and compares its size and SHA-256 with the manifest.
Result<std::string> read_listed_file(const std::string& folder, const Manifest& manifest, const std::string& name);

}  // namespace optserve::checkpoint

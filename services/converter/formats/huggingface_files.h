// Which files of a Hugging Face folder hold its weights: chosen as transformers chooses them.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace optserve::converter {

struct HuggingFaceFiles {
  std::vector<std::string> names;            // in the folder, sorted
  std::map<std::string, std::string> index;  // tensor to file; empty without an index file
  bool is_safetensors = false;
};

// The index of weights in several files ("model.safetensors.index.json"): tensor to file, by its plain name; `path` is
// for messages. Refuses names that lead out of the folder; opens nothing.
Result<std::map<std::string, std::string>> parse_huggingface_index(std::string_view text, const std::string& path);

// model.safetensors, else its index, else complete model-K-of-N.safetensors, else the same of pytorch_model and .bin.
// nullopt if the folder has no config.json or none of these; refuses broken indices and incomplete sets.
Result<std::optional<HuggingFaceFiles>> find_huggingface_files(const std::string& folder);

}  // namespace optserve::converter

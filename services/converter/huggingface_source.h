// Hugging Face OPT folders: config.json with model*.safetensors or pytorch_model*.bin.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "converter/source.h"

namespace optserve::converter {

// `folder` holds config.json; `weights` are its weight files. Tensors get their Metaseq names.
Result<ForeignCheckpoint> open_huggingface(const std::string& folder, const std::vector<std::string>& weights);

// What config.json says, as hints; refuses models with features that OPT does not have. `path` is for messages.
Status parse_huggingface_config(std::string_view text, const std::string& path, ForeignHints& hints);

// The index of weights in several files ("model.safetensors.index.json"): every file that it names must be one of
// `weights`, by its plain name. Nothing is opened by what it says.
Status check_huggingface_index(std::string_view text, const std::string& path, const std::vector<std::string>& weights);

}  // namespace optserve::converter

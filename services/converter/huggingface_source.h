// Hugging Face OPT folders: config.json with model*.safetensors or pytorch_model*.bin.
#pragma once

#include <string>
#include <vector>

#include "converter/source.h"

namespace optserve::converter {

// `folder` holds config.json; `weights` are its weight files. Tensors get their Metaseq names.
Result<ForeignCheckpoint> open_huggingface(const std::string& folder, const std::vector<std::string>& weights);

}  // namespace optserve::converter

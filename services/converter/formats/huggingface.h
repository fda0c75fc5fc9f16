// Hugging Face folders of OPTForCausalLM: config.json and safetensors files, or files of torch.save.
#pragma once

#include <string>
#include <string_view>

#include "converter/formats/foreign_checkpoint.h"
#include "converter/formats/huggingface_files.h"

namespace optserve::converter {

Result<ForeignCheckpoint> open_huggingface(const std::string& folder, const HuggingFaceFiles& files);

// What config.json says, as hints; refuses models with features that OPT does not have. `path` is for messages.
Status parse_huggingface_config(std::string_view text, const std::string& path, ForeignHints& hints);

}  // namespace optserve::converter

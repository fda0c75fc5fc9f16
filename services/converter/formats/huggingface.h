// Hugging Face folders of OPTForCausalLM: config.json and safetensors files, or files of torch.save.
#pragma once

#include <string>

#include "converter/formats/foreign_checkpoint.h"
#include "converter/formats/huggingface_files.h"

namespace optserve::converter {

Result<ForeignCheckpoint> open_huggingface(const std::string& folder, const HuggingFaceFiles& files);

}  // namespace optserve::converter

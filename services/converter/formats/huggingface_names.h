// Names of tensors in files of transformers: the prefixes that wrappers add to them, and the meaning of names from
// other tools.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/error.h"

namespace optserve::converter {

// Metaseq's spelling of a name as transformers, or one of the wrappers that models are trained in, writes it:
// "module.model.decoder.final_layer_norm.weight" is "decoder.layer_norm.weight".
std::string metaseq_spelling(std::string name);

// The way back for messages, with transformers' own prefix.
std::string huggingface_spelling(const std::string& metaseq_name);

// True for the heads of other tasks, which OPTForCausalLM leaves out as well. `name` is Metaseq's spelling.
bool is_head_of_another_task(std::string_view name);

// Refuses files that hold something other than the plain weights of a model, such as adapters or quantised weights.
// `name` is as in the file.
Status check_kind_of_tensor(const std::string& file, const std::string& name);

}  // namespace optserve::converter

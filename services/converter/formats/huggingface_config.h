// What the JSON files of a Hugging Face folder say about its model.
#pragma once

#include <string>
#include <string_view>

#include "converter/formats/foreign_checkpoint.h"

namespace optserve::converter {

// What config.json says, as hints; refuses models with features that OPT does not have, and quantised ones. `path` is
// for messages.
Status parse_huggingface_config(std::string_view text, const std::string& path, ForeignHints& hints);

// What generation_config.json says: its special ids take precedence over those of config.json, as in transformers.
Status parse_generation_config(std::string_view text, const std::string& path, ForeignHints& hints);

}  // namespace optserve::converter

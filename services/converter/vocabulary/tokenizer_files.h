// The vocabulary and merges that travel with a model.
#pragma once

#include <optional>
#include <string>

#include "base/error.h"

namespace optserve::converter {

struct TokenizerFiles {
  std::string vocab;   // content of gpt2-vocab.json
  std::string merges;  // content of gpt2-merges.txt
  int64_t tokens = 0;  // one more than the largest id
};

// From the two given paths, else from gpt2-vocab.json and gpt2-merges.txt (or vocab.json and merges.txt) beside `input`
// or in the folder above it; nullopt when there are none. Refuses one without the other and files that are unreadable.
Result<std::optional<TokenizerFiles>> find_tokenizer(const std::string& input, const std::string& vocab_path,
                                                     const std::string& merges_path);

}  // namespace optserve::converter

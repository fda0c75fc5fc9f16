// The vocabulary, merges and added tokens that travel with a model, gathered from the files of its tokenizer.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "conversion/command_options.h"

namespace optserve::converter {

struct TokenizerFiles {
  std::string vocab;    // content of gpt2-vocab.json, added tokens included
  std::string merges;   // content of gpt2-merges.txt
  int64_t tokens = 0;   // one more than the largest id
  std::string added{};  // content of added-tokens.json; empty if there are none to speak of
  TokenId bos_id = -1;  // of the tokenizer's bos_token; -1: not said
  TokenId eos_id = -1;
  bool leads_with_bos = true;        // prompts of text begin with bos_id
  std::vector<std::string> notes{};  // settings that are not honoured, as warnings for people
};

struct TokenizerPlace {
  std::string input;  // the checkpoint
  std::string vocab_file{};
  std::string merges_file{};
  conversion::PromptTokens prompt_tokens = conversion::PromptTokens::kAdded;
};

// From the two given paths, else from gpt2-vocab.json and gpt2-merges.txt, vocab.json and merges.txt, or
// tokenizer.json, beside the input or in the folder above it; nullopt when there are none. What lies beside them is
// taken too: added_tokens.json, tokenizer_config.json, special_tokens_map.json. Refuses one without the other, files
// that are unreadable or contradict each other, and tokenizers that are no byte-level BPE as GPT-2's.
Result<std::optional<TokenizerFiles>> find_tokenizer(const TokenizerPlace& place);

}  // namespace optserve::converter

// The settings in the JSON files of a Hugging Face tokenizer: each reader adds to what the readers before it have
// found.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "tokenizer/added_tokens.h"

namespace optserve::converter {

struct TokenizerSettings {
  std::map<std::string, tokenizer::AddedToken> added;  // by content
  std::vector<std::string> special;                    // contents that are special wherever their ids come from
  std::optional<std::string> bos_token, eos_token;
  std::optional<bool> leads_with_bos;
  std::optional<TokenId> leading_id;
  std::vector<std::string> notes;
};

// The texts of the two files that tokenizer.json holds in one.
struct TokenizerTables {
  std::string vocab;
  std::string merges;
};

// `path` is for messages in all of them.
Result<TokenizerTables> parse_tokenizer_json(std::string_view text, const std::string& path, TokenizerSettings& found);
Status parse_tokenizer_config(std::string_view text, const std::string& path, TokenizerSettings& found);
Status parse_added_tokens_json(std::string_view text, const std::string& path, TokenizerSettings& found);
Status parse_special_tokens_map(std::string_view text, const std::string& path, TokenizerSettings& found);

}  // namespace optserve::converter

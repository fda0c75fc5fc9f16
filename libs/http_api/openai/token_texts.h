// Single tokens as text, for lists of log-probabilities.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "tokenizer/bpe.h"

namespace optserve::http_api {

// Different ids have different texts, so that none hides another as the key of a JSON object:
// - a token that consists of whole characters is its text, and a special token is its spelling ("</s>");
// - bytes that are not whole characters are written as by OpenAI: "bytes:\xe2\x96";
// - an id that has no text, or the same text as another id, is "token_id:50271".
class TokenTexts {
 public:
  explicit TokenTexts(const tokenizer::Bpe& bpe);  // `bpe` outlives this

  std::string text(TokenId id) const;
  // The form that `return_tokens_as_token_ids` asks for.
  static std::string id_text(TokenId id) { return "token_id:" + std::to_string(id); }

  // For each id, where its text begins in the decoded text of all: in characters (code points), plus `start`. Special
  // tokens have no length, and an id that continues a character begins where the character does.
  std::vector<int64_t> offsets(std::span<const TokenId> ids, int64_t start) const;

 private:
  std::string plain_text(TokenId id) const;

  const tokenizer::Bpe* bpe_;
  std::vector<TokenId> hidden_;  // in order; ids that have the same text as a lower id
};

// The number of characters (code points) of valid UTF-8.
int64_t count_characters(std::string_view text);

}  // namespace optserve::http_api

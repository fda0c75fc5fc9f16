// Tokens that were added to a vocabulary after its merges were learned, such as names of roles in a chat or marks of a
// format. They are in the vocabulary like others; this list has what is special about them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/ids.h"

namespace optserve::tokenizer {

struct AddedToken {
  TokenId id = 0;
  std::string content;
  bool special = false;      // adds nothing to a text
  bool recognised = false;   // in the text of prompts, before anything else is done with the text
  bool lstrip = false;       // if recognised, white space before it belongs to it
  bool rstrip = false;       // the same after it
  bool single_word = false;  // recognised only where no letter, digit or '_' touches it
  bool operator==(const AddedToken&) const = default;
};

// The file added-tokens.json of a checkpoint, a list of objects. Its reader refuses unknown and missing keys, contents
// that are empty or too long, and ids or contents that occur twice.
std::string added_tokens_text(const std::vector<AddedToken>& tokens);
Result<std::vector<AddedToken>> parse_added_tokens(std::string_view text);

// Finds recognised tokens in texts: always the leftmost match, and of several the longest.
class AddedTokenFinder {
 public:
  AddedTokenFinder() = default;
  explicit AddedTokenFinder(std::vector<AddedToken> tokens);

  bool empty() const { return tokens_.empty(); }
  struct Match {
    size_t begin = 0, end = 0;  // bytes of the text, with the white space that belongs to the token
    TokenId id = -1;            // -1: none
  };
  // The next match from `from` on; at the text's end if there is none. The text must be valid UTF-8. The time is
  // proportional to the text that is passed, in the worst case times the longest content.
  Match find(std::string_view text, size_t from) const;

 private:
  const AddedToken* longest_at(std::string_view text, size_t at) const;

  std::vector<AddedToken> tokens_;      // in order of their contents
  std::vector<bool> begins_with_byte_;  // by byte: whether some content begins with it
};

}  // namespace optserve::tokenizer

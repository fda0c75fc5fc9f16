// For tests and fuzzers: a vocabulary of OPT's form made from a list of merges, without files.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/bpe.h"
#include "tokenizer/byte_alphabet.h"

namespace optserve::tokenizer {

using Pairs = std::vector<std::pair<std::string, std::string>>;

struct SmallVocabulary {
  std::vector<std::string> tokens = {"<s>", "<pad>", "</s>", "<unk>"};  // by id
  Pairs merges;

  // Ids 4 ... 259 are the bytes in order; then the merges' results, then <mask>.
  explicit SmallVocabulary(Pairs pairs) : merges(std::move(pairs)) {
    for (int byte = 0; byte < 256; ++byte) tokens.push_back(spelling_of_byte(static_cast<uint8_t>(byte)));
    for (const auto& [left, right] : merges) tokens.push_back(left + right);
    tokens.push_back("<mask>");
  }

  std::string json() const {
    std::string out = "{";
    for (size_t id = 0; id < tokens.size(); ++id) {
      if (id > 0) out += ", ";
      out += '"';
      for (const char c : tokens[id]) {
        if (c == '"' || c == '\\') out += '\\';
        out += c;
      }
      out += "\": " + std::to_string(id);
    }
    return out + "}";
  }

  std::string merges_text() const {
    std::string out = "#version: 0.2\n";
    for (const auto& [left, right] : merges) out += left + " " + right + "\n";
    return out;
  }

  Bpe make() const { return Bpe::parse(json(), merges_text()).value(); }
};

// Words, a space, and merges inside the two emoji and the accented letter that the tests use. U+0120 spells the space.
inline SmallVocabulary story_vocabulary() {
  return SmallVocabulary(Pairs{{"t", "h"},
                               {"th", "e"},
                               {"\u0120", "the"},
                               {"a", "a"},
                               {"aa", "aa"},
                               {"e", "n"},
                               {"en", "d"},
                               {"\u0120", "end"},
                               {"\u00f0", "\u0141"},
                               {"\u00f0\u0141", "\u013a"},
                               {"\u00c3", "\u00a9"},
                               {"'", "s"},
                               {"o", "n"},
                               {"on", "c"},
                               {"onc", "e"},
                               {"\u0120", "\u0120"},
                               {"\u0120\u0120", "\u0120\u0120"},
                               {"x", "y"},
                               {"y", "z"},
                               {"x", "yz"}});
}

}  // namespace optserve::tokenizer

// Readers of the two files that define a byte-level BPE: gpt2-vocab.json ({"token": id, ...}) and gpt2-merges.txt (a
// "#version" line, and then one pair per line in the order of the merges). Both refuse what they do not fully
// understand.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace optserve::tokenizer {

inline constexpr size_t kVocabularyFileBytesMax = 32 << 20;  // either file; GPT-2's have 0.9 and 0.5 MB
inline constexpr size_t kSpellingBytesMax = 1024;            // of one token; GPT-2's longest has 256

// The spellings by id; ids are 0 ... n-1. Refuses anything but one flat object of unsigned integers, tokens or ids that
// occur twice, gaps, more than limits::kVocabularyMax entries, and tokens that are empty or longer than
// kSpellingBytesMax.
Result<std::vector<std::string>> read_vocabulary(std::string_view json);

// One line of a merges file; the views point into the text that was read.
struct MergeLine {
  size_t number = 0;  // of the line, from 1
  std::string_view left;
  std::string_view right;
};
// The merges in order. Refuses lines that are not two words with one space between them, and too many lines.
Result<std::vector<MergeLine>> read_merges(std::string_view text);

// `text` in double quotes, for messages: bytes other than printable ASCII become \xNN, and long text is cut.
std::string in_quotes(std::string_view text);

}  // namespace optserve::tokenizer

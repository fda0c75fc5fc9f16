// UTF-8 validity (Unicode 15, table 3-7): no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once

#include <cstddef>
#include <string_view>

namespace optserve {

// Length of the longest prefix of `text` that is valid UTF-8 and ends at a character boundary.
size_t valid_utf8_prefix(std::string_view text);
inline bool is_valid_utf8(std::string_view text) { return valid_utf8_prefix(text) == text.size(); }

// True if `text` is a proper, so far valid beginning of one character (so more bytes may complete it).
bool is_incomplete_utf8(std::string_view text);

}  // namespace optserve

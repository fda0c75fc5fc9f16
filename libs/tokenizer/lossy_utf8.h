// Turns bytes into text that is always valid UTF-8.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace optserve::tokenizer {

inline constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD

// Appends `bytes` to `text`, each maximal part of a bad sequence as one U+FFFD (Unicode 15 section 3.9, the WHATWG
// decoder, Python's errors="replace"). Stops before a character that is still incomplete at the end; returns the number
// of bytes read, of which at most 3 are left.
size_t append_lossy(std::string_view bytes, std::string& text);

// The same for all of `bytes`: an incomplete character at the end becomes U+FFFD too.
std::string lossy_utf8(std::string_view bytes);

}  // namespace optserve::tokenizer

#include "tokenizer/lossy_utf8.h"

#include "base/utf8.h"

namespace optserve::tokenizer {

size_t append_lossy(std::string_view bytes, std::string& text) {
  size_t at = 0;
  while (true) {
    const size_t valid = valid_utf8_prefix(bytes.substr(at));
    text += bytes.substr(at, valid);
    at += valid;
    const std::string_view rest = bytes.substr(at);
    if (rest.empty() || is_incomplete_utf8(rest)) return at;
    // The maximal part is the longest proper beginning of a character, or a single byte that begins no character.
    size_t bad = 1;
    while (bad < rest.size() && is_incomplete_utf8(rest.substr(0, bad + 1))) ++bad;
    text += kReplacement;
    at += bad;
  }
}

std::string lossy_utf8(std::string_view bytes) {
  std::string text;
  if (append_lossy(bytes, text) < bytes.size()) text += kReplacement;
  return text;
}

}  // namespace optserve::tokenizer

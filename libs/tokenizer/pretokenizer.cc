#include "tokenizer/pretokenizer.h"

#include <algorithm>

namespace optserve::tokenizer::detail {

Character wide_character(std::string_view text, size_t at) {
  const auto lead = static_cast<uint8_t>(text[at]);
  const size_t wanted = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  const size_t bytes = std::min(wanted, text.size() - at);
  uint32_t code_point = lead & (0xffu >> (wanted + 1));
  for (size_t i = 1; i < bytes; ++i) code_point = code_point << 6 | (static_cast<uint8_t>(text[at + i]) & 0x3fu);
  return {class_of(code_point), bytes};
}

size_t space_end(std::string_view text, size_t at) {
  size_t last = at;  // where the run's last character begins
  size_t end = at;
  while (end < text.size()) {
    const Character next = character_at(text, end);
    if (next.kind != CharClass::kSpace) break;
    last = end;
    end += next.bytes;
  }
  // \s+(?!\S): before a visible character, the run leaves out its last character unless it would then be empty.
  return end == text.size() || last == at ? end : last;
}

}  // namespace optserve::tokenizer::detail

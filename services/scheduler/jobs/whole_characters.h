// Cutting text where no character is torn.
#pragma once

#include <cstddef>
#include <string_view>

namespace optserve::scheduler {

// The longest beginning of UTF-8 text of at most `bytes_max` bytes, without part of a character.
inline std::string_view whole_characters(std::string_view text, size_t bytes_max) {
  if (text.size() <= bytes_max) return text;
  while (bytes_max > 0 && (static_cast<unsigned char>(text[bytes_max]) & 0xC0u) == 0x80u) --bytes_max;
  return text.substr(0, bytes_max);
}

}  // namespace optserve::scheduler

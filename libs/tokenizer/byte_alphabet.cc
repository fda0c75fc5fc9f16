#include "tokenizer/byte_alphabet.h"

#include <array>

namespace optserve::tokenizer {
namespace {

constexpr uint32_t kAlphabetEnd = 0x144;  // one past the last character of the alphabet

constexpr bool stands_for_itself(uint32_t byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
}

struct Alphabet {
  std::array<uint16_t, 256> character_of{};
  std::array<int16_t, kAlphabetEnd> byte_of{};

  constexpr Alphabet() {
    byte_of.fill(-1);
    uint16_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      character_of[byte] = stands_for_itself(byte) ? static_cast<uint16_t>(byte) : next++;
      byte_of[character_of[byte]] = static_cast<int16_t>(byte);
    }
  }
};

constexpr Alphabet kAlphabet;

}  // namespace

std::string spelling_of_byte(uint8_t byte) {
  const uint16_t character = kAlphabet.character_of[byte];
  if (character < 0x80) return std::string(1, static_cast<char>(character));
  return {static_cast<char>(0xc0 | (character >> 6)), static_cast<char>(0x80 | (character & 0x3f))};
}

std::optional<std::string> bytes_of_spelling(std::string_view spelling) {
  std::string bytes;
  for (size_t at = 0; at < spelling.size();) {
    uint32_t character = static_cast<uint8_t>(spelling[at++]);
    if (character >= 0x80) {  // the alphabet ends below U+0800: two bytes at most
      if (character < 0xc2 || character > 0xdf || at == spelling.size()) return std::nullopt;
      const auto second = static_cast<uint8_t>(spelling[at++]);
      if ((second & 0xc0) != 0x80) return std::nullopt;
      character = (character & 0x1f) << 6 | (second & 0x3f);
    }
    if (character >= kAlphabetEnd || kAlphabet.byte_of[character] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kAlphabet.byte_of[character]));
  }
  return bytes;
}

}  // namespace optserve::tokenizer

// GPT-2's split of text into pieces that merges never cross, as a hand-written scanner of the pattern
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//   (https://github.com/openai/gpt-2/blob/master/src/encoder.py). It looks at each character at most twice and never
//   backtracks, so the time is linear for every input.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tokenizer/unicode_classes.h"

namespace optserve::tokenizer {
namespace detail {

constexpr std::array<CharClass, 128> make_ascii_classes() {
  std::array<CharClass, 128> classes{};
  for (size_t c = 0; c < 128; ++c) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool space = c == ' ' || (c >= '\t' && c <= '\r');
    if (letter) classes[c] = CharClass::kLetter;
    if (c >= '0' && c <= '9') classes[c] = CharClass::kNumber;
    if (space) classes[c] = CharClass::kSpace;
  }
  return classes;
}
inline constexpr std::array<CharClass, 128> kAsciiClasses = make_ascii_classes();

struct Character {
  CharClass kind;
  size_t bytes;
};
// The character at text[at], which is not ASCII. `text` is valid UTF-8.
Character wide_character(std::string_view text, size_t at);

inline Character character_at(std::string_view text, size_t at) {
  const auto byte = static_cast<uint8_t>(text[at]);
  if (byte < 0x80) [[likely]] {
    return {kAsciiClasses[byte], 1};
  }
  return wide_character(text, at);
}

// The end of the run of characters of class `kind` that continues at text[at].
inline size_t run_end(std::string_view text, size_t at, CharClass kind) {
  while (at < text.size()) {
    const Character next = character_at(text, at);
    if (next.kind != kind) break;
    at += next.bytes;
  }
  return at;
}

// The length of the contraction that begins with the apostrophe at text[at]; 0 if there is none.
inline size_t contraction(std::string_view text, size_t at) {
  const char first = at + 1 < text.size() ? text[at + 1] : '\0';
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  const char second = at + 2 < text.size() ? text[at + 2] : '\0';
  const bool three =
      (first == 'r' && second == 'e') || (first == 'v' && second == 'e') || (first == 'l' && second == 'l');
  return three ? 3 : 0;
}

// The end of the piece that begins with the white space at text[at] and contains nothing else.
size_t space_end(std::string_view text, size_t at);

}  // namespace detail

// The end of the piece that begins at `begin`, which must be the beginning of a piece. `text` is valid UTF-8, and begin
// < text.size().
inline size_t piece_end(std::string_view text, size_t begin) {
  if (text[begin] == '\'') {
    if (const size_t length = detail::contraction(text, begin)) return begin + length;
  }
  size_t at = begin;
  if (text[at] == ' ' && at + 1 < text.size()) ++at;  // a space joins the word, number or symbols after it
  const detail::Character first = detail::character_at(text, at);
  if (first.kind == CharClass::kSpace) return detail::space_end(text, begin);
  return detail::run_end(text, at + first.bytes, first.kind);
}

}  // namespace optserve::tokenizer

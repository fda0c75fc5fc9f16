// GPT-2 writes each byte of a token as one printable character, so that vocabulary files need no escapes: the 188
// visible Latin-1 bytes stand for themselves and the other 68 are U+0100 ... U+0143 in order (space is U+0120). Source:
// bytes_to_unicode() in https://github.com/openai/gpt-2/blob/master/src/encoder.py
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace optserve::tokenizer {

// How a vocabulary file spells `byte`: one character in UTF-8.
std::string spelling_of_byte(uint8_t byte);

// The bytes that `spelling` stands for; nullopt if it contains a character outside of the alphabet.
std::optional<std::string> bytes_of_spelling(std::string_view spelling);

}  // namespace optserve::tokenizer

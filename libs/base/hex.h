// Hexadecimal digits; bytes are written in lower case.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace optserve {

std::string to_hex(std::span<const uint8_t> bytes);
// Decodes `text` into `bytes`. False unless it is exactly two lower-case digits for each byte.
bool from_hex(std::string_view text, std::span<uint8_t> bytes);
// The value of a digit of either case; -1 if it is not a digit.
int hex_digit(char c);

}  // namespace optserve

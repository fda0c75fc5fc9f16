// The four character classes that GPT-2's pattern distinguishes, for every Unicode code point.
#pragma once

#include <cstddef>
#include <cstdint>

namespace optserve::tokenizer {

// Bits as stored in the table: \p{L}, \p{N}, \s (property White_Space), and everything else.
enum class CharClass : uint8_t { kOther = 0, kLetter = 1, kNumber = 2, kSpace = 3 };

// The class of a code point under Unicode 16.0; unassigned ones and values above U+10FFFF are kOther.
CharClass class_of(uint32_t code_point);

}  // namespace optserve::tokenizer

// CRC-32C (Castagnoli, RFC 3720 appendix B.4): finds rows that SQLite's own checks cannot, such as flipped payload
// bits.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace optserve::journal {

inline constexpr std::array<uint32_t, 256> kCrc32cTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) ? 0x82F63B78u : 0u);
    table[i] = value;
  }
  return table;
}();

// Continues from `crc`, the value of the bytes before.
inline uint32_t crc32c(std::string_view bytes, uint32_t crc = 0) {
  crc = ~crc;
  for (const char c : bytes) crc = kCrc32cTable[(crc ^ static_cast<uint8_t>(c)) & 0xff] ^ (crc >> 8);
  return ~crc;
}

}  // namespace optserve::journal

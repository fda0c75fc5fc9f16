// CRC-32C (Castagnoli, RFC 3720 appendix B.4), eight bytes at a time. It finds damage that SQLite's own checks cannot,
// such as flipped bits of a payload.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace optserve::journal {

// Table n gives the effect of a byte that is followed by n further bytes.
inline constexpr std::array<std::array<uint32_t, 256>, 8> kCrc32cTables = [] {
  std::array<std::array<uint32_t, 256>, 8> tables{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) ? 0x82F63B78u : 0u);
    tables[0][i] = value;
  }
  for (size_t n = 1; n < 8; ++n) {
    for (size_t i = 0; i < 256; ++i) tables[n][i] = (tables[n - 1][i] >> 8) ^ tables[0][tables[n - 1][i] & 0xff];
  }
  return tables;
}();

// Continues from `crc`, the checksum of the bytes before.
inline uint32_t crc32c(std::string_view bytes, uint32_t crc = 0) {
  crc = ~crc;
  const char* at = bytes.data();
  size_t left = bytes.size();
  for (; left >= 8; at += 8, left -= 8) {
    uint64_t word;
    std::memcpy(&word, at, sizeof word);  // little-endian hosts only, as everywhere in optserve
    word ^= crc;
    crc = 0;
    for (size_t n = 0; n < 8; ++n) crc ^= kCrc32cTables[7 - n][(word >> (8 * n)) & 0xff];
  }
  for (; left > 0; ++at, --left) crc = kCrc32cTables[0][(crc ^ static_cast<uint8_t>(*at)) & 0xff] ^ (crc >> 8);
  return ~crc;
}

}  // namespace optserve::journal

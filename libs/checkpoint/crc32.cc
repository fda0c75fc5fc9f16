#include "checkpoint/crc32.h"

#include <array>
#include <bit>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace optserve::checkpoint {
namespace {

static_assert(std::endian::native == std::endian::little);

using Tables = std::array<std::array<uint32_t, 256>, 8>;

// tables[k][b]: the CRC of byte b followed by k zero bytes, so that eight bytes are looked up at once.
constexpr Tables make_tables() {
  Tables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xEDB88320u : 0u);
    tables[0][byte] = crc;
  }
  for (size_t k = 1; k < 8; ++k)
    for (size_t byte = 0; byte < 256; ++byte)
      tables[k][byte] = (tables[k - 1][byte] >> 8) ^ tables[0][tables[k - 1][byte] & 0xff];
  return tables;
}

constexpr Tables kTables = make_tables();

// Continues the inverted CRC.
uint32_t by_tables(uint32_t crc, const std::byte* at, size_t left) {
  for (; left >= 8; left -= 8, at += 8) {
    uint64_t word;
    std::memcpy(&word, at, sizeof word);
    word ^= crc;
    crc = kTables[7][word & 0xff] ^ kTables[6][word >> 8 & 0xff] ^ kTables[5][word >> 16 & 0xff] ^
          kTables[4][word >> 24 & 0xff] ^ kTables[3][word >> 32 & 0xff] ^ kTables[2][word >> 40 & 0xff] ^
          kTables[1][word >> 48 & 0xff] ^ kTables[0][word >> 56];
  }
  for (; left > 0; --left, ++at) crc = (crc >> 8) ^ kTables[0][(crc ^ static_cast<uint32_t>(*at)) & 0xff];
  return crc;
}

#if defined(__x86_64__)
// Products of polynomials move 16 bytes over the next 16 (V. Gopal et al., "Fast CRC Computation for Generic
// Polynomials Using PCLMULQDQ", 2009; the constants are x^(128+32) and x^(128-32) modulo the polynomial, reflected).
// What is left at the end is 16 bytes with the same CRC, from 0 on, as all that were read. `count` is a multiple of 16,
// at least 16.
__attribute__((target("pclmul,sse4.1"))) uint32_t by_products(uint32_t crc, const std::byte* at, size_t count) {
  const __m128i over_16_bytes = _mm_set_epi64x(0x00ccaa009e, 0x01751997d0);
  const auto load = [](const std::byte* from) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)); };
  __m128i state = _mm_xor_si128(load(at), _mm_cvtsi32_si128(static_cast<int>(crc)));
  for (size_t i = 16; i < count; i += 16) {
    const __m128i low = _mm_clmulepi64_si128(state, over_16_bytes, 0x00);
    const __m128i high = _mm_clmulepi64_si128(state, over_16_bytes, 0x11);
    state = _mm_xor_si128(_mm_xor_si128(low, high), load(at + i));
  }
  std::array<std::byte, 16> rest{};
  _mm_storeu_si128(reinterpret_cast<__m128i*>(rest.data()), state);
  return by_tables(0, rest.data(), rest.size());
}

bool has_products() {
  static const bool present = __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
  return present;
}
#else
uint32_t by_products(uint32_t crc, const std::byte* at, size_t count) { return by_tables(crc, at, count); }
bool has_products() { return false; }
#endif

}  // namespace

uint32_t crc32(uint32_t crc, std::span<const std::byte> bytes) {
  constexpr size_t kWorthwhile = 64;
  crc = ~crc;
  if (bytes.size() >= kWorthwhile && has_products()) {
    const size_t whole = bytes.size() / 16 * 16;
    crc = by_products(crc, bytes.data(), whole);
    bytes = bytes.subspan(whole);
  }
  return ~by_tables(crc, bytes.data(), bytes.size());
}

}  // namespace optserve::checkpoint

#include "checkpoint/torch/crc32.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace optserve::checkpoint {
namespace crc32_test {

// Bit by bit, as the polynomial is defined.
uint32_t by_definition(std::span<const std::byte> bytes) {
  uint32_t crc = 0xffffffff;
  for (const std::byte byte : bytes) {
    crc ^= static_cast<uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xedb88320u : 0u);
  }
  return ~crc;
}

TEST(Crc32, OfTheCheckText) {
  const std::string text = "123456789";
  EXPECT_EQ(crc32(0, std::as_bytes(std::span(text))), 0xcbf43926u);
  EXPECT_EQ(crc32(0, {}), 0u);
}

TEST(Crc32, OfEveryLengthAtAnyPlaceWholeAndInPieces) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(1000);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  for (size_t length = 0; length < 400; ++length) {
    const auto part = std::span(bytes).subspan(random() % 64, length);
    const uint32_t expected = by_definition(part);
    ASSERT_EQ(crc32(0, part), expected) << length;
    const size_t cut = length == 0 ? 0 : random() % length;
    ASSERT_EQ(crc32(crc32(0, part.first(cut)), part.subspan(cut)), expected) << length << " cut at " << cut;
  }
}

}  // namespace crc32_test
}  // namespace optserve::checkpoint

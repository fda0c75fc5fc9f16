#include "checkpoint/torch/zip.h"

#include <gtest/gtest.h>

#include "checkpoint/torch/testing/pt_builder.h"

namespace optserve::checkpoint {
namespace zip_test {

using testing::little;
using testing::zip_bytes;
using testing::ZipMember;

std::string fault_of(const std::string& bytes) {
  const MemorySource source(std::as_bytes(std::span(bytes)), "x.pt");
  const Result<ZipDirectory> zip = read_zip(source);
  return zip.ok() ? "accepted" : zip.refusal().message;
}

const std::vector<ZipMember> kMembers = {{"a/data.pkl", "hello"}, {"a/data/0", ""}, {"a/data/1", "0123456789"}};

// Overwrites bytes at the n-th occurrence of a signature.
std::string patched(std::string bytes, uint32_t signature, size_t offset, const std::string& value,
                    int occurrence = 0) {
  size_t at = bytes.find(little(signature, 4));
  for (int i = 0; i < occurrence; ++i) at = bytes.find(little(signature, 4), at + 1);
  return bytes.replace(at + offset, value.size(), value);
}
constexpr uint32_t kLocal = 0x04034b50;
constexpr uint32_t kDirectory = 0x02014b50;
constexpr uint32_t kEnd = 0x06054b50;
constexpr uint32_t kEnd64 = 0x06064b50;

TEST(Zip, ReadsPlainAndWide) {
  for (bool wide : {false, true}) {
    const std::string bytes = zip_bytes(kMembers, wide);
    const MemorySource source(std::as_bytes(std::span(bytes)));
    const Result<ZipDirectory> zip = read_zip(source);
    ASSERT_TRUE(zip.ok()) << zip.refusal().message;
    ASSERT_EQ(zip.value().entries.size(), 3u);
    for (const ZipMember& member : kMembers) {
      const ZipEntry* entry = zip.value().find(member.name);
      ASSERT_NE(entry, nullptr);
      EXPECT_EQ(bytes.substr(entry->offset, entry->bytes), member.data);
      EXPECT_EQ(crc32(0, std::as_bytes(std::span(member.data))), entry->crc32);
    }
  }
}

TEST(Zip, CrcIsTheKnownOne) {
  const std::string text = "123456789";
  EXPECT_EQ(crc32(0, std::as_bytes(std::span(text))), 0xCBF43926u);
}

TEST(Zip, RefusesWhatContradictsItself) {
  const std::string good = zip_bytes(kMembers);
  const std::string wide = zip_bytes(kMembers, true);
  const std::pair<std::string, const char*> cases[] = {
      {good.substr(0, good.size() - 1), "does not end like"},
      {good + "x", "does not end like"},
      {"x" + good, "directory does not end where"},
      {"", "0 bytes"},
      {patched(good, kEnd, 20, little(4, 2)) + "spam", "does not end like"},
      {patched(good, kEnd, 8, little(2, 2)), "several disks"},
      {patched(patched(good, kEnd, 8, little(2, 2)), kEnd, 10, little(2, 2)), "another length"},
      {patched(patched(good, kEnd, 8, little(4, 2)), kEnd, 10, little(4, 2)), "another length"},
      {patched(good, kEnd, 16, little(1, 4)), "does not end where"},
      {patched(good, kDirectory, 10, little(8, 2)), "is compressed"},
      {patched(good, kDirectory, 8, little(1, 2)), "is encrypted"},
      {patched(good, kDirectory, 8, little(0x20, 2)), "unknown flags"},
      {patched(good, kDirectory, 24, little(6, 4)), "two different sizes"},
      {patched(good, kDirectory, 42, little(1, 4)), "contradicts the directory"},
      {patched(good, kDirectory, 42, little(0xfffffff0, 4)), "outside of the file"},
      {patched(good, kDirectory, 42, little(0xffffffff, 4)), "malformed extra"},
      {patched(good, kDirectory, 46, "b"), "another name in its local header"},
      {patched(good, kLocal, 22, little(4, 4)), "contradicts the directory"},
      {patched(good, kLocal, 14, little(4, 4)), "contradicts the directory"},
      {patched(good, kLocal, 8, little(8, 2)), "contradicts the directory"},
      {patched(wide, kEnd64, 32, little(9, 8)), "malformed"},
      {patched(wide, kEnd64, 40, little(9, 8)), "does not end where"},
      {patched(wide, kEnd64, 4, little(60, 8)), "malformed"},
      {patched(wide, kEnd, 10, little(7, 2)), "several disks"},
      {zip_bytes({{"a/x", "1"}, {"a/x", "1"}}), "occurs twice"},
      {zip_bytes({{std::string("a\0b", 3), "1"}}), "zero byte"},
  };
  for (const auto& [bytes, expected] : cases) {
    EXPECT_NE(fault_of(bytes).find(expected), std::string::npos) << expected << " / " << fault_of(bytes);
  }
}

// Two directory entries with the same bytes, as in the quoted-overlap zip bomb.
TEST(Zip, RefusesOverlappingMembers) {
  const std::string bytes = zip_bytes({{"a/0", "same"}, {"a/0", "same"}});
  const std::string overlapped = patched(bytes, kDirectory, 42, little(0, 4), 1);
  EXPECT_NE(fault_of(overlapped).find("overlaps"), std::string::npos) << fault_of(overlapped);
}

TEST(Zip, EveryFlippedByteOfTheStructureIsSafe) {
  for (bool wide : {false, true}) {
    const std::string good = zip_bytes(kMembers, wide);
    for (size_t i = 0; i < good.size(); ++i) {
      for (unsigned char bit = 1; bit != 0; bit = static_cast<unsigned char>(bit << 1)) {
        std::string bytes = good;
        bytes[i] = static_cast<char>(bytes[i] ^ bit);
        fault_of(bytes);  // must return, whatever it says
      }
    }
  }
}

}  // namespace zip_test
}  // namespace optserve::checkpoint

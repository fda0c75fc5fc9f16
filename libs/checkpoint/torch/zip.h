// The directory of a zip file as torch.save writes it: uncompressed members only. No number in it is trusted. Names are
// labels here and never become paths.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "checkpoint/io/byte_source.h"

namespace optserve::checkpoint {

inline constexpr uint64_t kZipEntriesMax = 100'000;
inline constexpr uint64_t kZipDirectoryMax = 64 << 20;

struct ZipEntry {
  std::string name;
  uint64_t offset = 0;  // of the first data byte in the file
  uint64_t bytes = 0;
  uint32_t crc32 = 0;  // as recorded; not yet compared with the data
};

struct ZipDirectory {
  std::vector<ZipEntry> entries;  // in order of offset; their byte ranges are disjoint and inside the file
  std::string sha256;             // of the central directory: names, sizes and CRCs of all members

  const ZipEntry* find(std::string_view name) const;  // nullptr if absent
  std::unordered_map<std::string, size_t> index;
};

// Refuses compressed or encrypted members, duplicate names, overlaps, bytes before the first member or after the end,
// archive comments, and headers that contradict each other.
Result<ZipDirectory> read_zip(const ByteSource& file);

}  // namespace optserve::checkpoint

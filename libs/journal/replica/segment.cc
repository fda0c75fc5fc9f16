#include "journal/replica/segment.h"

#include <cstring>
#include <string_view>

#include "base/check.h"
#include "journal/crc32c.h"

namespace optserve::journal {
namespace {

constexpr std::string_view kSegmentMagic = "OPTSSEG1";
constexpr uint64_t kSegmentPagesMax = 1 << 20;  // 4 GiB: more than any log holds

// As on disk, in the order of little-endian hosts.
struct SegmentHeader {
  char magic[8];
  char journal[16];
  char wal_salt[8];
  uint64_t number, term, commits, wal_frames, is_complete, database_pages, pages;
  int64_t wall_ms;
  uint32_t pages_crc;   // of what follows: numbers of the pages, then their bytes
  uint32_t header_crc;  // of everything above
};
static_assert(sizeof(SegmentHeader) == 104);
constexpr size_t kHeaderCrcBytes = sizeof(SegmentHeader) - sizeof(uint32_t);

uint32_t header_crc(const SegmentHeader& header) {
  return crc32c({reinterpret_cast<const char*>(&header), kHeaderCrcBytes});
}

std::optional<SegmentHeader> read_header(ReplicaFile& log, int64_t at) {
  const std::string bytes = log.read_at(sizeof(SegmentHeader), at);
  SegmentHeader header{};
  if (bytes.size() != sizeof header) return std::nullopt;
  std::memcpy(&header, bytes.data(), sizeof header);
  const bool is_whole = std::string_view(header.magic, 8) == kSegmentMagic && header.header_crc == header_crc(header) &&
                        header.pages <= kSegmentPagesMax;
  return is_whole ? std::optional(header) : std::nullopt;
}

Segment segment_of(const SegmentHeader& header) {
  Segment segment;
  segment.number = header.number;
  segment.position.journal.assign(header.journal, sizeof header.journal);
  segment.position.term = header.term;
  segment.position.commits = header.commits;
  static constexpr char kNoSalt[8] = {};
  if (std::memcmp(header.wal_salt, kNoSalt, 8) != 0) segment.position.wal_salt.assign(header.wal_salt, 8);
  segment.position.wal_frames = header.wal_frames;
  segment.position.wall_ms = header.wall_ms;
  segment.is_complete = header.is_complete != 0;
  segment.database_pages = header.database_pages;
  return segment;
}

// False if the pages do not match the header's checksum.
bool read_pages(ReplicaFile& log, const SegmentHeader& header, int64_t at, Pages& pages) {
  const size_t numbers_bytes = header.pages * sizeof(uint64_t);
  const size_t size = numbers_bytes + header.pages * kReplicaPageBytes;
  const std::string bytes = log.read_at(size, at);
  if (bytes.size() != size || crc32c(bytes) != header.pages_crc) return false;
  for (size_t i = 0; i < header.pages; ++i) {
    uint64_t number;
    std::memcpy(&number, bytes.data() + i * sizeof number, sizeof number);
    pages[number] = bytes.substr(numbers_bytes + i * kReplicaPageBytes, kReplicaPageBytes);
  }
  return true;
}

}  // namespace

std::string encode(const Segment& segment) {
  const JournalPosition& position = segment.position;
  check(position.journal.size() == 16, "a journal's id has 16 bytes");
  SegmentHeader header{};
  std::memcpy(header.magic, kSegmentMagic.data(), kSegmentMagic.size());
  std::memcpy(header.journal, position.journal.data(), sizeof header.journal);
  std::memcpy(header.wal_salt, position.wal_salt.data(), position.wal_salt.size());
  header.number = segment.number;
  header.term = position.term;
  header.commits = position.commits;
  header.wal_frames = position.wal_frames;
  header.wall_ms = position.wall_ms;
  header.is_complete = segment.is_complete ? 1 : 0;
  header.database_pages = segment.database_pages;
  header.pages = segment.pages.size();
  std::string bytes(sizeof header, '\0');
  bytes.reserve(sizeof header + segment.pages.size() * (sizeof(uint64_t) + kReplicaPageBytes));
  for (const auto& [number, page] : segment.pages) {
    bytes.append(reinterpret_cast<const char*>(&number), sizeof number);
  }
  for (const auto& [number, page] : segment.pages) bytes.append(page);
  header.pages_crc = crc32c(std::string_view(bytes).substr(sizeof header));
  header.header_crc = header_crc(header);
  std::memcpy(bytes.data(), &header, sizeof header);
  return bytes;
}

LogEnd read_log(ReplicaFile& log, const std::function<void(const Segment&)>& visit) {
  LogEnd end;
  for (;;) {
    const auto header = read_header(log, end.bytes);
    if (!header || (end.last && header->number != end.last->number + 1)) return end;
    Segment segment = segment_of(*header);
    if (!read_pages(log, *header, end.bytes + static_cast<int64_t>(sizeof *header), segment.pages)) return end;
    visit(segment);
    end.bytes += static_cast<int64_t>(sizeof *header + header->pages * (sizeof(uint64_t) + kReplicaPageBytes));
    segment.pages.clear();
    end.last = std::move(segment);
  }
}

}  // namespace optserve::journal

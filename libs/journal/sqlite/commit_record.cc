#include "journal/sqlite/commit_record.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <string_view>
#include <vector>

#include "journal/crc32c.h"
#include "journal/journal_files.h"
#include "journal/sqlite/sqlite.h"

namespace optserve::journal {
namespace {

constexpr std::string_view kMagic = "OPTSCMT1";
constexpr size_t kIdBytes = 16;
constexpr size_t kSaltBytes = 8;
constexpr size_t kRecordBytes = 8 + kIdBytes + 8 + kSaltBytes + 8 + 4;  // below a sector: written whole or not at all

void put_number(std::string& bytes, uint64_t number) {
  bytes.append(reinterpret_cast<const char*>(&number), sizeof number);
}

// SQLite's file format, chapter 4.2: two running sums over pairs of 32-bit words.
struct WalSum {
  uint32_t first = 0, second = 0;
  template <bool kBigEndian>
  void add_words(const char* bytes, size_t size) {
    for (size_t i = 0; i + 8 <= size; i += 8) {
      uint32_t pair[2];
      std::memcpy(pair, bytes + i, sizeof pair);
      first += (kBigEndian ? __builtin_bswap32(pair[0]) : pair[0]) + second;
      second += (kBigEndian ? __builtin_bswap32(pair[1]) : pair[1]) + first;
    }
  }
  void add(const char* bytes, size_t size, bool big_endian) {
    big_endian ? add_words<true>(bytes, size) : add_words<false>(bytes, size);
  }
};

uint32_t big_endian_at(const char* bytes) {
  uint32_t word;
  std::memcpy(&word, bytes, sizeof word);
  return __builtin_bswap32(word);
}

constexpr size_t kWalHeaderBytes = 32;
constexpr size_t kFrameHeaderBytes = 24;

// Counts the frames, from the start on, that belong to the header's filling of the log and have correct sums.
uint64_t count_frames(std::ifstream& file, const char* header, WalSum sum, bool big_endian) {
  const size_t page_bytes = big_endian_at(header + 8);
  if (page_bytes < 512 || page_bytes > 65536) return 0;
  std::vector<char> frame(kFrameHeaderBytes + page_bytes);
  for (uint64_t count = 0;; ++count) {
    if (!file.read(frame.data(), static_cast<std::streamsize>(frame.size()))) return count;
    if (std::memcmp(frame.data() + 8, header + 16, kSaltBytes) != 0) return count;
    sum.add(frame.data(), 8, big_endian);
    sum.add(frame.data() + kFrameHeaderBytes, page_bytes, big_endian);
    if (sum.first != big_endian_at(frame.data() + 16) || sum.second != big_endian_at(frame.data() + 20)) return count;
  }
}

}  // namespace

CommitRecord::CommitRecord(const std::string& journal_path) : path_(path_of(journal_path)) {
  const bool is_fresh = file_bytes(path_) == 0;
  fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd_ < 0) throw errno_error("open " + path_);
  if (is_fresh) sync_folder_of(path_);
}

CommitRecord::~CommitRecord() { ::close(fd_); }

std::optional<CommitRecord::Content> CommitRecord::read() const {
  std::string bytes(kRecordBytes, '\0');
  if (::pread(fd_, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) return std::nullopt;
  uint32_t crc;
  std::memcpy(&crc, bytes.data() + kRecordBytes - sizeof crc, sizeof crc);
  if (!bytes.starts_with(kMagic) || crc != crc32c(std::string_view(bytes).substr(0, kRecordBytes - sizeof crc))) {
    return std::nullopt;
  }
  Content content;
  const char* at = bytes.data() + kMagic.size();
  content.journal.assign(at, kIdBytes);
  std::memcpy(&content.commits, at + kIdBytes, 8);
  content.wal_salt.assign(at + kIdBytes + 8, kSaltBytes);
  std::memcpy(&content.wal_frames, at + kIdBytes + 8 + kSaltBytes, 8);
  return content;
}

void CommitRecord::write(const Content& content) {
  check(content.journal.size() == kIdBytes, "a journal's id has 16 bytes");
  std::string bytes(kMagic);
  bytes += content.journal;
  put_number(bytes, content.commits);
  bytes += content.wal_salt.empty() ? std::string(kSaltBytes, '\0') : content.wal_salt;
  put_number(bytes, content.wal_frames);
  const uint32_t crc = crc32c(bytes);
  bytes.append(reinterpret_cast<const char*>(&crc), sizeof crc);
  if (::pwrite(fd_, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    throw errno_error("write " + path_);
  }
  is_dirty_ = true;
}

void CommitRecord::sync() {
  if (!is_dirty_) return;
  if (::fdatasync(fd_) != 0) throw errno_error("fdatasync " + path_);
  is_dirty_ = false;
}

void check_wal(const std::string& journal_path, const std::optional<CommitRecord::Content>& known) {
  const std::string path = journal_path + "-wal";
  // The header is synced before the first frame is written, so a header alone promises nothing.
  if (file_bytes(path) <= static_cast<int64_t>(kWalHeaderBytes)) return;
  std::ifstream file(path, std::ios::binary);
  char header[kWalHeaderBytes];
  if (!file.read(header, sizeof header)) throw Error("cannot read " + path);
  const bool big_endian = (big_endian_at(header) & 1) != 0;
  WalSum sum;
  sum.add(header, kWalHeaderBytes - 8, big_endian);
  if (sum.first != big_endian_at(header + 24) || sum.second != big_endian_at(header + 28)) {
    throw DamagedError("journal " + journal_path +
                       ": the header of its write-ahead log is damaged: commits may be missing. Move the journal away "
                       "and restore the latest backup");
  }
  if (!known || std::string_view(header + 16, kSaltBytes) != known->wal_salt) return;
  const uint64_t whole = count_frames(file, header, sum, big_endian);
  if (whole < known->wal_frames) {
    throw DamagedError("journal " + journal_path + ": its write-ahead log is damaged at frame " +
                       std::to_string(whole + 1) + " of " + std::to_string(known->wal_frames) +
                       ": commits are missing. Move the journal away and restore the latest backup");
  }
}

}  // namespace optserve::journal

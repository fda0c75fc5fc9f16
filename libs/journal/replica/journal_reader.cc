#include "journal/replica/journal_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "base/error.h"

namespace optserve::journal {
namespace {

// SQLite's file format, chapter 4.1.
constexpr int64_t kWalHeaderSize = 32;
constexpr size_t kFrameHeaderSize = 24;
constexpr size_t kFrameSize = kFrameHeaderSize + kReplicaPageBytes;
constexpr uint64_t kFramesARead = 256;  // about a MiB

std::string read_some(int fd, const std::string& path, int64_t at, size_t size) {
  std::string bytes(size, '\0');
  size_t done = 0;
  while (done < size) {
    const ssize_t got = ::pread(fd, bytes.data() + done, size - done, at + static_cast<int64_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw errno_error("read " + path);
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  bytes.resize(done);
  return bytes;
}

uint32_t word_at(std::string_view bytes, size_t at) {
  uint32_t word;
  std::memcpy(&word, bytes.data() + at, sizeof word);
  return __builtin_bswap32(word);
}

class OpenLog {
 public:
  explicit OpenLog(std::string path) : path_(std::move(path)), fd_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (fd_ < 0) throw errno_error("open " + path_);
  }
  ~OpenLog() { ::close(fd_); }
  OpenLog(const OpenLog&) = delete;
  OpenLog& operator=(const OpenLog&) = delete;

  std::string frames(uint64_t from, uint64_t count) const {
    const auto size = static_cast<size_t>(count) * kFrameSize;
    std::string bytes = read_some(fd_, path_, kWalHeaderSize + static_cast<int64_t>(from * kFrameSize), size);
    if (bytes.size() != size) throw Error(path_ + " has fewer frames than were written to it");
    return bytes;
  }

 private:
  const std::string path_;
  const int fd_;
};

}  // namespace

JournalReader::JournalReader(const std::string& path)
    : path_(path), fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW)) {
  if (fd_ < 0) throw errno_error("open " + path);
}

JournalReader::~JournalReader() { ::close(fd_); }

uint64_t JournalReader::read_log(const JournalPosition& to, uint64_t from, Pages& pages) const {
  const OpenLog log(path_ + "-wal");
  uint64_t database_pages = 0;
  while (from < to.wal_frames) {
    const uint64_t count = std::min(kFramesARead, to.wal_frames - from);
    const std::string bytes = log.frames(from, count);
    for (uint64_t i = 0; i < count; ++i) {
      const std::string_view frame = std::string_view(bytes).substr(i * kFrameSize, kFrameSize);
      if (frame.substr(8, 8) != to.wal_salt) throw Error(path_ + "-wal was filled anew while it was read");
      pages[word_at(frame, 0)] = frame.substr(kFrameHeaderSize);
      database_pages = word_at(frame, 4);  // 0 except in the last frame of a commit
    }
    from += count;
  }
  return database_pages;
}

int64_t JournalReader::database_bytes() const {
  struct stat about {};
  if (::fstat(fd_, &about) != 0) throw errno_error("stat " + path_);
  return about.st_size;
}

std::string JournalReader::read_database(int64_t at, size_t size) const { return read_some(fd_, path_, at, size); }

}  // namespace optserve::journal

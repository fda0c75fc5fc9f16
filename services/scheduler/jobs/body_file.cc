#include "scheduler/jobs/body_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "journal/crc32c.h"

namespace optserve::scheduler {
namespace {

struct Header {
  uint32_t bytes = 0;
  uint32_t checksum = 0;
};
constexpr size_t kFirstRead = 4'096;  // most records are read at once
constexpr uint64_t kSmallestStep = 128;

bool write_all(int fd, std::string_view bytes, uint64_t at) {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(at));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(written)), at += static_cast<uint64_t>(written);
  }
  return true;
}

// Reads up to `size` bytes, fewer only at the end of the file.
std::string read_some(int fd, size_t size, uint64_t at) {
  std::string bytes(size, '\0');
  size_t have = 0;
  while (have < size) {
    const ssize_t got = ::pread(fd, bytes.data() + have, size - have, static_cast<off_t>(at + have));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw errno_error("the file of waiting jobs cannot be read");
    if (got == 0) break;
    have += static_cast<size_t>(got);
  }
  bytes.resize(have);
  return bytes;
}

}  // namespace

BodyFile::BodyFile(const std::string& folder) {
  fd_ = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd_ >= 0) return;
  // A file system that has no files without a name.
  std::string path = folder + "/.optserve-waiting-XXXXXX";
  fd_ = ::mkostemp(path.data(), O_CLOEXEC);
  if (fd_ < 0) throw errno_error("the file of waiting jobs cannot be made in " + folder);
  ::unlink(path.c_str());
}

BodyFile::~BodyFile() { ::close(fd_); }

uint64_t BodyFile::room_for(size_t bytes) {
  const uint64_t size = bytes + sizeof(Header);
  const uint64_t step = std::max(kSmallestStep, std::bit_floor(size) / 8);
  return (size + step - 1) / step * step;
}

std::optional<uint64_t> BodyFile::put(std::string_view bytes) {
  const uint64_t room = room_for(bytes.size());
  std::vector<uint64_t>& free = free_[room];
  const uint64_t at = free.empty() ? end_ : free.back();
  const Header header{static_cast<uint32_t>(bytes.size()), journal::crc32c(bytes)};
  std::string record(sizeof header, '\0');
  std::memcpy(record.data(), &header, sizeof header);
  record += bytes;
  if (!write_all(fd_, record, at)) return std::nullopt;
  if (free.empty()) {
    end_ += room;
  } else {
    free.pop_back();
  }
  ++held_;
  return at;
}

std::string BodyFile::take(uint64_t at) {
  const auto damaged = [] { return Error("the file of waiting jobs is damaged; the journal has what it held"); };
  std::string record = read_some(fd_, kFirstRead, at);
  Header header;
  if (record.size() < sizeof header) throw damaged();
  std::memcpy(&header, record.data(), sizeof header);
  const size_t size = sizeof header + header.bytes;
  if (at + size > end_) throw damaged();
  if (record.size() < size) record += read_some(fd_, size - record.size(), at + record.size());
  record.resize(std::min(record.size(), size));
  record.erase(0, sizeof header);
  if (record.size() != header.bytes || journal::crc32c(record) != header.checksum) throw damaged();
  free_[room_for(record.size())].push_back(at);
  if (--held_ == 0) {
    free_.clear();
    end_ = 0;
    if (::ftruncate(fd_, 0) != 0) throw errno_error("the file of waiting jobs cannot be emptied");
  }
  return record;
}

}  // namespace optserve::scheduler

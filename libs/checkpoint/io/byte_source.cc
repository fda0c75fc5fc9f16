#include "checkpoint/io/byte_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <future>
#include <vector>

namespace optserve::checkpoint {
namespace {

constexpr size_t kReadBytesMax = size_t{1} << 30;  // Linux moves at most 2 GiB in one call
constexpr size_t kPieceBytes = 16 << 20;
constexpr size_t kReadersMax = 8;

int64_t mtime_ns(const struct stat& info) { return info.st_mtim.tv_sec * 1'000'000'000LL + info.st_mtim.tv_nsec; }

}  // namespace

Result<std::unique_ptr<InputFile>> InputFile::open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // non-blocking: a FIFO must not hang us
  if (fd < 0) {
    if (errno == ENOENT || errno == ENOTDIR) return refuse(ErrorCode::kBadRequest, path + ": no such file");
    if (errno == EACCES || errno == ENXIO) return refuse(ErrorCode::kBadRequest, path + ": " + std::strerror(errno));
    throw errno_error("open " + path);
  }
  struct stat info {};
  if (fstat(fd, &info) != 0) {
    const Error error = errno_error("stat " + path);
    ::close(fd);
    throw error;
  }
  if (!S_ISREG(info.st_mode)) {
    ::close(fd);
    return refuse(ErrorCode::kUnsupportedFormat, path + ": expected a regular file, found " +
                                                     (S_ISDIR(info.st_mode) ? "a folder" : "a device or pipe"));
  }
  return std::unique_ptr<InputFile>(
      new InputFile(path, fd, static_cast<uint64_t>(info.st_size), mtime_ns(info)));  // private constructor
}

InputFile::~InputFile() { ::close(fd_); }

// Large reads are split into pieces that are read in parallel: a single reader does not use the full speed of a fast
// disk, a network, or even the page cache.
void InputFile::read_at(uint64_t offset, std::span<std::byte> out) const {
  std::vector<std::future<void>> others;
  while (out.size() >= 2 * kPieceBytes) {
    const auto piece = out.first(kPieceBytes);
    others.push_back(std::async(std::launch::async, [this, offset, piece] { read_piece(offset, piece); }));
    out = out.subspan(kPieceBytes);
    offset += kPieceBytes;
    if (others.size() < kReadersMax) continue;
    others.front().get();
    others.erase(others.begin());
  }
  read_piece(offset, out);
  for (auto& other : others) other.get();
}

void InputFile::read_piece(uint64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t got = ::pread(fd_, out.data(), std::min(out.size(), kReadBytesMax), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw errno_error("read " + path_);
    if (got == 0) {
      throw Error(path_ + ": ends at byte " + std::to_string(offset) + ", but had " + std::to_string(size_) +
                  " bytes when it was opened");
    }
    out = out.subspan(static_cast<size_t>(got));
    offset += static_cast<uint64_t>(got);
  }
}

bool InputFile::has_changed() const {
  struct stat now {};
  if (fstat(fd_, &now) != 0) throw errno_error("stat " + path_);
  return static_cast<uint64_t>(now.st_size) != size_ || mtime_ns(now) != mtime_ns_;
}

void MemorySource::read_at(uint64_t offset, std::span<std::byte> out) const {
  if (offset > bytes_.size() || out.size() > bytes_.size() - offset) {
    throw Error(name_ + ": read outside of " + std::to_string(bytes_.size()) + " bytes");
  }
  if (!out.empty()) std::memcpy(out.data(), bytes_.data() + offset, out.size());
}

Refusal corrupt_file(const std::string& path, const std::string& what) {
  return refuse(ErrorCode::kDataCorrupt, path + ": " + what);
}

Result<std::string> read_text_file(const std::string& path, uint64_t max_bytes) {
  auto file = InputFile::open(path);
  if (!file.ok()) return file.refusal();
  const uint64_t size = file.value()->size();
  if (size > max_bytes) {
    return refuse(ErrorCode::kDataCorrupt, path + ": has " + std::to_string(size) + " bytes, at most " +
                                               std::to_string(max_bytes) + " are allowed");
  }
  std::string text(size, '\0');
  file.value()->read_at(0, std::as_writable_bytes(std::span(text)));
  return text;
}

}  // namespace optserve::checkpoint

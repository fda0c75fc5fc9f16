#include "checkpoint/staging/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/error.h"

namespace optserve::checkpoint {
namespace {

// True if locked, false if another holds it and `operation` does not wait.
bool lock(int fd, int operation, const std::string& path) {
  while (flock(fd, operation) != 0) {
    if (errno == EWOULDBLOCK) return false;
    if (errno != EINTR) throw errno_error("lock " + path + " (conversions need a file system with locks)");
  }
  return true;
}

// For writing: network file systems give no exclusive lock on what is open for reading only.
int open_lock(int folder_fd, const std::string& path, const std::string& name) {
  const int fd = openat(folder_fd, name.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
  if (fd < 0 && errno != ENOENT) throw errno_error("open " + path);
  return fd;
}

}  // namespace

FileLock::~FileLock() {
  if (fd_ >= 0) ::close(fd_);
}

FileLock::FileLock(FileLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

FileLock& FileLock::operator=(FileLock&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

std::optional<FileLock> FileLock::wait(int folder_fd, const std::string& folder, const std::string& name, Kind kind) {
  const std::string path = folder + "/" + name;
  FileLock found(open_lock(folder_fd, path, name));
  if (found.fd_ < 0) return std::nullopt;
  lock(found.fd_, kind == Kind::kShared ? LOCK_SH : LOCK_EX, path);
  return found;
}

std::optional<FileLock> FileLock::try_exclusive(int folder_fd, const std::string& folder, const std::string& name) {
  const std::string path = folder + "/" + name;
  FileLock found(open_lock(folder_fd, path, name));
  if (found.fd_ < 0 || !lock(found.fd_, LOCK_EX | LOCK_NB, path)) return std::nullopt;
  return found;
}

bool FileLock::try_upgrade() { return lock(fd_, LOCK_EX | LOCK_NB, "a staging folder"); }

}  // namespace optserve::checkpoint

#include "base/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/error.h"

namespace optserve {
namespace {

// True if locked, false if another holds it and `operation` does not wait.
bool lock_file(int fd, int operation, const std::string& path) {
  while (flock(fd, operation) != 0) {
    if (errno == EWOULDBLOCK) return false;
    if (errno != EINTR) throw errno_error("lock " + path + " (its file system must support flock)");
  }
  return true;
}

// Opened for writing, since network file systems give no exclusive lock on what is open for reading only. -1 if the
// folder does not exist.
int open_lock_file(int folder_fd, const std::string& name, const std::string& path) {
  const int fd = openat(folder_fd, name.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0 && errno != ENOENT) throw errno_error("open " + path);
  return fd;
}

}  // namespace

FileLock::~FileLock() {
  if (fd_ >= 0) ::close(fd_);
}

FileLock::FileLock(FileLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)) {}

FileLock& FileLock::operator=(FileLock&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(path_, other.path_);
  return *this;
}

std::optional<FileLock> FileLock::wait(int folder_fd, const std::string& folder, const std::string& name, Kind kind) {
  const std::string path = folder + "/" + name;
  FileLock found(open_lock_file(folder_fd, name, path), path);
  if (found.fd_ < 0) return std::nullopt;
  lock_file(found.fd_, kind == Kind::kShared ? LOCK_SH : LOCK_EX, path);
  return found;
}

std::optional<FileLock> FileLock::try_exclusive(int folder_fd, const std::string& folder, const std::string& name) {
  const std::string path = folder + "/" + name;
  FileLock found(open_lock_file(folder_fd, name, path), path);
  if (found.fd_ < 0 || !lock_file(found.fd_, LOCK_EX | LOCK_NB, path)) return std::nullopt;
  return found;
}

std::optional<FileLock> FileLock::try_exclusive(const std::string& path) {
  FileLock found(open_lock_file(AT_FDCWD, path, path), path);
  if (found.fd_ < 0) throw errno_error("open " + path);
  if (!lock_file(found.fd_, LOCK_EX | LOCK_NB, path)) return std::nullopt;
  return found;
}

bool FileLock::try_upgrade() { return lock_file(fd_, LOCK_EX | LOCK_NB, path_); }

void FileLock::write_note(std::string_view text) {
  if (ftruncate(fd_, 0) != 0 || pwrite(fd_, text.data(), text.size(), 0) < 0) throw errno_error("write " + path_);
}

}  // namespace optserve

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string_view>

#include "journal/journal_database.h"

namespace optserve::journal {

LockFile::LockFile(const std::string& path) {
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd_ < 0) throw errno_error("journal lock " + path);
  if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) {
    const std::string pid = std::to_string(::getpid()) + "\n";
    // Only for people who look for the holder; the lock itself does not need it.
    if (::ftruncate(fd_, 0) != 0 || ::pwrite(fd_, pid.data(), pid.size(), 0) < 0) {
      const Error error = errno_error("journal lock " + path);
      ::close(fd_);
      throw error;
    }
    return;
  }
  std::array<char, 24> holder{};
  const ssize_t length = ::pread(fd_, holder.data(), holder.size() - 1, 0);
  std::string pid(holder.data(), length > 0 ? static_cast<size_t>(length) : 0);
  while (!pid.empty() && pid.back() == '\n') pid.pop_back();
  ::close(fd_);
  throw Error("journal lock " + path + " is held by another process (pid " + (pid.empty() ? "unknown" : pid) +
              "): one scheduler owns a journal; stop that one or use another path");
}

LockFile::~LockFile() { ::close(fd_); }

void prepare_journal_file(const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) == 0) {
    if (!S_ISREG(status.st_mode)) throw Error("journal " + path + ": expected a regular file, found something else");
    if (status.st_mode & 022) {
      throw Error("journal " + path + ": other users may write to it; remove that permission (chmod 600) first");
    }
  } else if (errno != ENOENT) {
    throw errno_error("journal " + path);
  }
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) throw errno_error("journal " + path + " (its folder must exist and be writable)");
  std::array<char, 16> head{};
  const ssize_t length = ::pread(fd, head.data(), head.size(), 0);
  ::close(fd);
  static constexpr std::string_view kMagic("SQLite format 3\0", 16);
  if (length != 0 && std::string_view(head.data(), length > 0 ? static_cast<size_t>(length) : 0) != kMagic) {
    throw Error("journal " + path + ": not a database; move the file away or name another path");
  }
}

}  // namespace optserve::journal

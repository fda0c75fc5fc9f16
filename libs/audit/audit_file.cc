#include "audit/audit_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "base/error.h"
#include "base/rename_file.h"

namespace optserve::audit {
namespace {

void write_all(int fd, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw errno_error("write " + path);
    bytes.remove_prefix(static_cast<size_t>(written));
  }
}

// A new or renamed file is under its name after a loss of power too.
void sync_names(const std::string& path) {
  std::string folder = std::filesystem::path(path).parent_path().string();
  if (folder.empty()) folder = ".";
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) throw errno_error("open " + folder);
  const int failed = ::fsync(fd);
  const int cause = errno;
  ::close(fd);
  errno = cause;
  if (failed != 0) throw errno_error("sync " + folder);
}

}  // namespace

std::string file_name(const std::string& path, size_t age) {
  return age == 0 ? path : path + "." + std::to_string(age);
}

void AuditFile::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

void AuditFile::open() {
  if (!lock_) lock_ = FileLock::try_exclusive(path_ + ".lock");
  if (!lock_) throw Error(path_ + ": another process writes this audit log");
  fd_ = ::open(path_.c_str(), O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
  if (fd_ < 0) throw errno_error("open " + path_);
  struct stat about {};
  if (fstat(fd_, &about) != 0) throw errno_error("stat " + path_);
  if (!S_ISREG(about.st_mode)) throw Error(path_ + ": expected a file");
  bytes_ = static_cast<size_t>(about.st_size);
  sync_names(path_);
  // A line that a loss of power has cut must not swallow the next one.
  char last = '\n';
  if (bytes_ > 0 && ::pread(fd_, &last, 1, about.st_size - 1) != 1) throw errno_error("read " + path_);
  if (last != '\n') {
    write_all(fd_, "\n", path_);
    ++bytes_;
  }
}

void AuditFile::take_turns() {
  close();
  std::error_code failure;
  for (size_t age = files_max_ - 1; age > 0; --age) {
    const std::string from = file_name(path_, age - 1);
    const auto status = std::filesystem::symlink_status(from, failure);
    if (std::filesystem::exists(status)) rename_file(from, file_name(path_, age));
  }
  open();
}

// Somebody may have moved or removed the file: records must not go where nobody finds them.
bool AuditFile::is_in_place() const {
  struct stat ours {
  }, named{};
  return fd_ >= 0 && fstat(fd_, &ours) == 0 && ::lstat(path_.c_str(), &named) == 0 && ours.st_dev == named.st_dev &&
         ours.st_ino == named.st_ino;
}

void AuditFile::append(std::string_view lines) {
  try {
    if (!is_in_place()) {
      close();
      open();
    }
    if (bytes_ > 0 && bytes_ + lines.size() > file_bytes_max_) take_turns();
  } catch (const Error&) {
    close();
    throw;
  }
  try {
    write_all(fd_, lines, path_);
    if (::fdatasync(fd_) != 0) throw errno_error("sync " + path_);
  } catch (const Error&) {
    // The lines are given again: a part of them would stand there twice. Where this fails too, the next open() at least
    // ends the line.
    if (::ftruncate(fd_, static_cast<off_t>(bytes_)) != 0) errno = 0;
    close();
    throw;
  }
  bytes_ += lines.size();
}

}  // namespace optserve::audit

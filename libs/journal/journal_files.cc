#include "journal/journal_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"

namespace optserve::journal {
namespace {

class FileDescriptor {
 public:
  FileDescriptor(const std::string& path, int flags) : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0600)) {
    if (fd_ < 0) throw errno_error("open " + path);
  }
  ~FileDescriptor() { ::close(fd_); }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

}  // namespace

FileLock lock_journal(const std::string& path) {
  if (auto lock = FileLock::try_exclusive(path)) {
    lock->write_note(std::to_string(::getpid()) + "\n");  // for people who look for the holder
    return std::move(*lock);
  }
  std::string pid;
  std::getline(std::ifstream(path), pid);
  throw Error("journal lock " + path + " is held by another process (pid " + (pid.empty() ? "unknown" : pid) +
              "): one scheduler owns a journal; stop that one or use another path");
}

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
  if (length == 0) sync_folder_of(path);  // otherwise a power loss may lose the whole file
  static constexpr std::string_view kMagic("SQLite format 3\0", 16);
  const std::string_view found(head.data(), length > 0 ? static_cast<size_t>(length) : 0);
  // A file of zeros: power was lost while it was created, which SQLite detects by its rollback journal.
  const bool is_unwritten = found.find_first_not_of('\0') == std::string_view::npos;
  if (!is_unwritten && found != kMagic) {
    throw Error("journal " + path + ": not a database; move the file away or name another path");
  }
}

int64_t file_bytes(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0) return status.st_size;
  if (errno == ENOENT) return 0;
  throw errno_error("stat " + path);
}

void sync_file(const std::string& path) {
  const FileDescriptor file(path, O_RDONLY);
  if (::fsync(file.get()) != 0) throw errno_error("fsync " + path);
}

void sync_folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const FileDescriptor file(folder, O_RDONLY | O_DIRECTORY);
  if (::fsync(file.get()) != 0) throw errno_error("fsync " + folder);
}

void copy_file(const std::string& from, const std::string& to) {
  const FileDescriptor source(from, O_RDONLY);
  const FileDescriptor target(to, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW);
  std::vector<char> buffer(1 << 20);
  for (;;) {
    const ssize_t got = ::read(source.get(), buffer.data(), buffer.size());
    if (got < 0) throw errno_error("read " + from);
    if (got == 0) break;
    for (ssize_t done = 0; done < got;) {
      const ssize_t put = ::write(target.get(), buffer.data() + done, static_cast<size_t>(got - done));
      if (put < 0) throw errno_error("write " + to);
      done += put;
    }
  }
  if (::fsync(target.get()) != 0) throw errno_error("fsync " + to);
}

void publish_file(const std::string& partial, const std::string& path) {
  sync_file(partial);
  if (::rename(partial.c_str(), path.c_str()) != 0) throw errno_error("rename " + partial + " to " + path);
  sync_folder_of(path);
}

void remove_file(const std::string& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) throw errno_error("remove " + path);
}

}  // namespace optserve::journal

#include "journal/replica/replica_disk.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <optional>

#include "base/file_lock.h"
#include "base/program.h"

namespace optserve::journal {
namespace {

struct stat status_of(const std::string& path) {
  struct stat about {};
  if (::stat(path.c_str(), &about) != 0) throw errno_error("stat " + path);
  return about;
}

class FolderFile final : public ReplicaFile {
 public:
  FolderFile(std::string path, int flags)
      : path_(std::move(path)), fd_(::open(path_.c_str(), flags | O_CLOEXEC | O_NOFOLLOW, 0600)) {
    if (fd_ < 0) throw errno_error("open " + path_);
  }
  ~FolderFile() override { ::close(fd_); }
  FolderFile(const FolderFile&) = delete;
  FolderFile& operator=(const FolderFile&) = delete;

  struct stat status() const {
    struct stat about {};
    if (::fstat(fd_, &about) != 0) throw errno_error("stat " + path_);
    return about;
  }
  int64_t bytes() override { return status().st_size; }
  std::string read_at(size_t size, int64_t at) override {
    std::string bytes(size, '\0');
    size_t done = 0;
    while (done < size) {
      const ssize_t got = ::pread(fd_, bytes.data() + done, size - done, at + static_cast<int64_t>(done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw errno_error("read " + path_);
      if (got == 0) break;
      done += static_cast<size_t>(got);
    }
    bytes.resize(done);
    return bytes;
  }
  void write_at(std::string_view bytes, int64_t at) override {
    while (!bytes.empty()) {
      const ssize_t put = ::pwrite(fd_, bytes.data(), bytes.size(), at);
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) throw errno_error("write " + path_);
      bytes.remove_prefix(static_cast<size_t>(put));
      at += put;
    }
  }
  void truncate(int64_t bytes) override {
    if (::ftruncate(fd_, bytes) != 0) throw errno_error("truncate " + path_);
  }
  void sync() override {
    if (::fdatasync(fd_) != 0) throw SyncError(errno_error("sync " + path_).what());
  }

 private:
  const std::string path_;
  const int fd_;
};

class Folder final : public ReplicaDisk {
 public:
  Folder(std::string folder, ReplicaUse use) : folder_(std::move(folder)), use_(use) {
    std::error_code failure;
    if (!std::filesystem::is_directory(folder_, failure)) {
      throw ConfigurationError("journal replica " + folder_ + ": no such folder");
    }
    device_ = status_of(folder_).st_dev;
    const std::string lock = folder_ + "/replica.lock";
    // A lock that is not there is held by nobody, and on a disk that cannot be written to nobody takes one.
    if (use == ReplicaUse::kRead && ::access(lock.c_str(), W_OK) != 0) return;
    lock_ = FileLock::try_exclusive(lock);
    if (!lock_) throw Error("journal replica " + folder_ + ": a scheduler writes to it");
    lock_->write_note(std::to_string(::getpid()) + "\n");
  }

  std::vector<std::string> names() override {
    std::vector<std::string> names;
    std::error_code failure;
    std::filesystem::directory_iterator entries(folder_, failure);
    if (failure) throw Error("list " + folder_ + ": " + failure.message());
    for (const auto& entry : entries) names.push_back(entry.path().filename().string());
    return names;
  }
  std::unique_ptr<ReplicaFile> open(const std::string& name, bool create) override {
    check_device();
    const int access = use_ == ReplicaUse::kRead ? O_RDONLY : O_RDWR;
    return std::make_unique<FolderFile>(path_of(name), access | (create ? O_CREAT | O_TRUNC : 0));
  }
  void rename(const std::string& from, const std::string& to) override {
    if (::rename(path_of(from).c_str(), path_of(to).c_str()) != 0) throw errno_error("rename " + path_of(from));
  }
  void remove(const std::string& name) override {
    if (::unlink(path_of(name).c_str()) != 0 && errno != ENOENT) throw errno_error("remove " + path_of(name));
  }
  void sync_names() override {
    const int fd = ::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) throw errno_error("open " + folder_);
    const int code = ::fsync(fd);
    const int why = errno;
    ::close(fd);
    errno = why;
    if (code != 0) throw SyncError(errno_error("sync " + folder_).what());
  }
  void check_place(ReplicaFile& file, const std::string& name) override {
    check_device();
    const struct stat opened = dynamic_cast<FolderFile&>(file).status();
    const struct stat named = status_of(path_of(name));
    if (opened.st_ino != named.st_ino || opened.st_dev != named.st_dev) {
      throw Error(path_of(name) + " was replaced by another file");
    }
  }

 private:
  // A mount that was lost leaves an empty folder on another disk, often that of the journal.
  void check_device() const {
    if (status_of(folder_).st_dev == device_) return;
    throw Error("journal replica " + folder_ + ": the folder is on another disk than at the start; is its mount lost?");
  }
  std::string path_of(const std::string& name) const { return folder_ + "/" + name; }

  const std::string folder_;
  const ReplicaUse use_;
  dev_t device_ = 0;
  std::optional<FileLock> lock_;
};

}  // namespace

std::unique_ptr<ReplicaDisk> open_replica_disk(const std::string& folder, ReplicaUse use) {
  return std::make_unique<Folder>(folder, use);
}

std::unique_ptr<ReplicaFile> open_replica_file(const std::string& path) {
  return std::make_unique<FolderFile>(path, O_RDWR);
}

}  // namespace optserve::journal

// A lock that ends with its process, however that ends: flock on a file. It holds between the processes of one host,
// and between hosts if their file system supports that.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace optserve {

class FileLock {
 public:
  enum class Kind { kShared, kExclusive };

  // All three create the file (mode 0600) if it does not exist, and throw Error if it cannot be opened, is a symbolic
  // link, or lies in a file system without locks.

  // Waits for the lock on file `name` of the open folder `folder_fd`; nullopt if that folder has been removed. `folder`
  // is its path, for messages.
  static std::optional<FileLock> wait(int folder_fd, const std::string& folder, const std::string& name, Kind kind);
  // The exclusive lock, or nullopt if this or another process holds one, or if the folder has been removed.
  static std::optional<FileLock> try_exclusive(int folder_fd, const std::string& folder, const std::string& name);
  // The same by path; a missing folder throws Error.
  static std::optional<FileLock> try_exclusive(const std::string& path);

  ~FileLock();
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&& other) noexcept;

  // Turns a shared lock into an exclusive one. While others hold the shared lock this fails, and this lock is lost. Of
  // several holders that try at the same time, one succeeds.
  bool try_upgrade();
  // Replaces the content of the file, which is for people only ("who holds this?").
  void write_note(std::string_view text);

 private:
  FileLock(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}

  int fd_;
  std::string path_;
};

}  // namespace optserve

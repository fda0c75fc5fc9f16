// A lock that ends with its process, however that ends: flock on a file. It holds between the processes of one host,
// and between hosts where their file system says so (docs/checkpoint_format.md).
#pragma once

#include <optional>
#include <string>

namespace optserve::checkpoint {

class FileLock {
 public:
  enum class Kind { kShared, kExclusive };

  // Creates the file if there is none, and waits for the lock. nullopt if the folder has been removed. `folder` is for
  // messages. Throws Error, also where the file system has no locks.
  static std::optional<FileLock> wait(int folder_fd, const std::string& folder, const std::string& name, Kind kind);
  // The exclusive lock, or nullopt if another holds one, in this process or elsewhere, or if the folder is gone.
  static std::optional<FileLock> try_exclusive(int folder_fd, const std::string& folder, const std::string& name);
  ~FileLock();
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&& other) noexcept;

  // From shared to exclusive. If others hold the shared lock, this one is lost. Of several that try at the same time
  // and are the only holders, one succeeds.
  bool try_upgrade();

 private:
  explicit FileLock(int fd) : fd_(fd) {}

  int fd_;
};

}  // namespace optserve::checkpoint

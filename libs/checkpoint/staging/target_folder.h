// The folder that a conversion or an export is going to create, and its parent folder, in which the work is done.
#pragma once

#include <cstdint>
#include <string>

#include "base/error.h"

namespace optserve::checkpoint {

class TargetFolder {
 public:
  // Creates the folders above it that do not exist. Refuses paths that do not name a folder, and parents that cannot be
  // created or opened.
  static Result<TargetFolder> open(const std::string& path);
  ~TargetFolder();
  TargetFolder(TargetFolder&& other) noexcept;
  TargetFolder& operator=(TargetFolder&&) = delete;

  const std::string& path() const { return path_; }
  const std::string& parent() const { return parent_; }
  const std::string& name() const { return name_; }
  int parent_fd() const { return parent_fd_; }
  bool exists() const;
  Status check_absent() const;

  // Renames the folder `name` in the open folder `from_fd`, on the same file system, to this one. The folder and its
  // files must have been flushed. Refused if the target has appeared meanwhile, since nothing is ever replaced. Throws
  // Error.
  Status publish(int from_fd, const std::string& name) const;

 private:
  explicit TargetFolder(const std::string& path);

  std::string path_, parent_, name_;
  int parent_fd_ = -1;
};

// Refuses early what would fail after hours: a file system with less than `bytes` free for the folder `target`, which
// need not exist.
Status check_room(const std::string& target, uint64_t bytes);

}  // namespace optserve::checkpoint

#include "checkpoint/staging/target_folder.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>  // renameat2
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <utility>

namespace optserve::checkpoint {

TargetFolder::TargetFolder(const std::string& path) : path_(path) {
  while (path_.size() > 1 && path_.back() == '/') path_.pop_back();
  parent_ = std::filesystem::path(path_).parent_path().string();
  if (parent_.empty()) parent_ = ".";
  name_ = std::filesystem::path(path_).filename().string();
}

Result<TargetFolder> TargetFolder::open(const std::string& path) {
  TargetFolder target(path);
  if (target.name_.empty() || target.name_ == "." || target.name_ == "..") {
    return refuse(ErrorCode::kBadRequest, "'" + path + "' does not name a folder to create");
  }
  std::error_code failed;
  std::filesystem::create_directories(target.parent_, failed);
  if (failed) return refuse(ErrorCode::kBadRequest, target.parent_ + ": cannot be created: " + failed.message());
  target.parent_fd_ = ::open(target.parent_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (target.parent_fd_ < 0) return refuse(ErrorCode::kBadRequest, errno_error("open " + target.parent_).what());
  return target;
}

TargetFolder::~TargetFolder() {
  if (parent_fd_ >= 0) ::close(parent_fd_);
}

TargetFolder::TargetFolder(TargetFolder&& other) noexcept
    : path_(std::move(other.path_)),
      parent_(std::move(other.parent_)),
      name_(std::move(other.name_)),
      parent_fd_(std::exchange(other.parent_fd_, -1)) {}

bool TargetFolder::exists() const {
  struct stat info {};
  return fstatat(parent_fd_, name_.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0;
}

Status TargetFolder::check_absent() const {
  if (!exists()) return ok_status();
  return refuse(ErrorCode::kBadRequest, path_ + ": exists already; remove it or choose another name");
}

Status TargetFolder::publish(int from_fd, const std::string& name) const {
  int failed = renameat2(from_fd, name.c_str(), parent_fd_, name_.c_str(), RENAME_NOREPLACE);
  if (failed != 0 && (errno == EINVAL || errno == ENOSYS)) {
    // Some network file systems lack the flag. A plain rename still refuses to replace a folder that holds anything.
    failed = renameat(from_fd, name.c_str(), parent_fd_, name_.c_str());
  }
  if (failed != 0 && (errno == EEXIST || errno == ENOTEMPTY || errno == ENOTDIR)) {
    return refuse(ErrorCode::kBadRequest, path_ + ": appeared meanwhile; nothing was replaced");
  }
  if (failed != 0) throw errno_error("rename to " + path_);
  if (fsync(parent_fd_) != 0) throw errno_error("fsync " + parent_);
  return ok_status();
}

Status check_room(const std::string& target, uint64_t bytes) {
  std::string parent = std::filesystem::path(target).parent_path().string();
  if (parent.empty()) parent = ".";
  struct statvfs info {};
  if (statvfs(parent.c_str(), &info) != 0) return ok_status();  // writing there will show what is wrong
  const uint64_t room = static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
  if (room >= bytes) return ok_status();
  return refuse(ErrorCode::kUnavailable, parent + ": " + std::to_string(bytes >> 20) + " MiB are needed, but only " +
                                             std::to_string(room >> 20) + " MiB are free");
}

}  // namespace optserve::checkpoint

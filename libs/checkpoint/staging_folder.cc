#include "checkpoint/staging_folder.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>  // renameat2
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <utility>

#include "base/ids.h"

namespace optserve::checkpoint {

namespace {

constexpr size_t kQueues = 2;                // hashing and writing take about twice what the rest of a conversion does
constexpr size_t kQueuedBytesMax = 8 << 20;  // of one

}  // namespace

OutputFile::OutputFile(int folder_fd, const std::string& name, const std::string& path, WriteQueue& queue)
    : name_(name),
      file_(std::make_shared<OpenFile>(
          openat(folder_fd, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644), path)),
      queue_(&queue) {
  if (file_->fd < 0) throw errno_error("create " + path);
}

void OutputFile::append(std::span<const std::byte> bytes) {
  bytes_ += bytes.size();
  queue_->write(file_, bytes);
}

FileEntry OutputFile::finish() {
  queue_->finish(file_);
  if (fsync(file_->fd) != 0) throw errno_error("fsync " + file_->path);
  if (::close(std::exchange(file_->fd, -1)) != 0) throw errno_error("close " + file_->path);
  return {name_, bytes_, to_hex(file_->hash.finish())};
}

StagingFolder::StagingFolder(const std::string& target) : target_(target) {
  while (target_.size() > 1 && target_.back() == '/') target_.pop_back();
  parent_ = std::filesystem::path(target_).parent_path().string();
  if (parent_.empty()) parent_ = ".";
  for (size_t i = 0; i < kQueues; ++i) queues_.push_back(std::make_unique<WriteQueue>(kQueuedBytesMax));
}

Result<std::unique_ptr<StagingFolder>> StagingFolder::create(const std::string& target) {
  std::unique_ptr<StagingFolder> folder(new StagingFolder(target));  // private constructor
  const std::string base = std::filesystem::path(folder->target_).filename().string();
  if (base.empty() || base == "." || base == "..")
    return refuse(ErrorCode::kBadRequest, "'" + target + "' does not name a folder to create");
  folder->parent_fd_ = ::open(folder->parent_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder->parent_fd_ < 0) return refuse(ErrorCode::kBadRequest, folder->parent_ + ": no such folder");
  struct stat info {};
  if (fstatat(folder->parent_fd_, base.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0)
    return refuse(ErrorCode::kBadRequest, folder->target_ + ": exists already; remove it or choose another name");
  folder->staging_name_ = "." + base.substr(0, 100) + ".staging-" + Id128::random().hex();
  if (mkdirat(folder->parent_fd_, folder->staging_name_.c_str(), 0755) != 0)
    throw errno_error("create a folder in " + folder->parent_);
  folder->staging_fd_ =
      openat(folder->parent_fd_, folder->staging_name_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (folder->staging_fd_ < 0) throw errno_error("open " + folder->parent_ + "/" + folder->staging_name_);
  return folder;
}

StagingFolder::~StagingFolder() {
  queues_.clear();  // nothing writes into the folder any more
  if (staging_fd_ >= 0) ::close(staging_fd_);
  if (!published_ && !staging_name_.empty()) {
    std::error_code ignored;  // a destructor has nobody to tell; the folder is hidden and never read
    std::filesystem::remove_all(std::filesystem::path(parent_) / staging_name_, ignored);
  }
  if (parent_fd_ >= 0) ::close(parent_fd_);
}

OutputFile StagingFolder::new_file(const std::string& name) {
  return OutputFile(staging_fd_, name, parent_ + "/" + staging_name_ + "/" + name, *queues_[files_++ % kQueues]);
}

FileEntry StagingFolder::write_file(const std::string& name, std::string_view text) {
  OutputFile file = new_file(name);
  file.append(std::as_bytes(std::span(text)));
  return file.finish();
}

Status StagingFolder::publish() {
  if (fsync(staging_fd_) != 0) throw errno_error("fsync " + staging_name_);
  const std::string base = std::filesystem::path(target_).filename().string();
  int failed = renameat2(parent_fd_, staging_name_.c_str(), parent_fd_, base.c_str(), RENAME_NOREPLACE);
  if (failed != 0 && (errno == EINVAL || errno == ENOSYS)) {
    // Some network file systems lack the flag. A plain rename still refuses to replace a folder that holds anything.
    failed = renameat(parent_fd_, staging_name_.c_str(), parent_fd_, base.c_str());
  }
  if (failed != 0 && (errno == EEXIST || errno == ENOTEMPTY || errno == ENOTDIR))
    return refuse(ErrorCode::kBadRequest, target_ + ": appeared meanwhile; nothing was replaced");
  if (failed != 0) throw errno_error("rename to " + target_);
  published_ = true;
  if (fsync(parent_fd_) != 0) throw errno_error("fsync " + parent_);
  return ok_status();
}

}  // namespace optserve::checkpoint

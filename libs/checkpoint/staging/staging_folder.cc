#include "checkpoint/staging/staging_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <utility>

#include "base/ids.h"

namespace optserve::checkpoint {

Result<std::unique_ptr<StagingFolder>> StagingFolder::create(const std::string& target) {
  Result<TargetFolder> opened = TargetFolder::open(target);
  if (!opened.ok()) return opened.refusal();
  if (Status status = opened.value().check_absent(); !status.ok()) return status.refusal();
  std::unique_ptr<StagingFolder> folder(new StagingFolder(std::move(opened).value()));  // private constructor
  const std::string& parent = folder->target_.parent();
  const int parent_fd = folder->target_.parent_fd();
  folder->staging_name_ = "." + folder->target_.name().substr(0, 100) + ".staging-" + Id128::random().hex();
  if (mkdirat(parent_fd, folder->staging_name_.c_str(), 0755) != 0) throw errno_error("create a folder in " + parent);
  folder->staging_fd_ =
      openat(parent_fd, folder->staging_name_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (folder->staging_fd_ < 0) throw errno_error("open " + parent + "/" + folder->staging_name_);
  return folder;
}

StagingFolder::~StagingFolder() {
  queues_.stop();
  if (staging_fd_ >= 0) ::close(staging_fd_);
  if (!published_ && !staging_name_.empty()) {
    std::error_code ignored;  // a destructor has no caller to tell; the hidden folder is never read
    std::filesystem::remove_all(std::filesystem::path(target_.parent()) / staging_name_, ignored);
  }
}

OutputFile StagingFolder::new_file(const std::string& name) {
  return OutputFile(staging_fd_, target_.parent() + "/" + staging_name_, name, queues_.next());
}

FileEntry StagingFolder::write_file(const std::string& name, std::string_view text) {
  OutputFile file = new_file(name);
  file.append(std::as_bytes(std::span(text)));
  return file.finish();
}

Status StagingFolder::publish() {
  if (fsync(staging_fd_) != 0) throw errno_error("fsync " + staging_name_);
  Status published = target_.publish(target_.parent_fd(), staging_name_);
  published_ = published.ok();
  return published;
}

}  // namespace optserve::checkpoint

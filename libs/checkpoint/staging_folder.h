// A folder that becomes visible whole or not at all: files in a hidden folder beside the target, fsync, rename.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "checkpoint/manifest.h"
#include "checkpoint/write_queue.h"

namespace optserve::checkpoint {

// A new file that is written once, from front to back, by the thread of `queue`, which must outlive it. Throws Error
// when the environment fails (disk full), perhaps only in a later call.
class OutputFile {
 public:
  // In the open folder `folder_fd`; the name must not exist yet. `path` is for messages.
  OutputFile(int folder_fd, const std::string& name, const std::string& path, WriteQueue& queue);

  void append(std::span<const std::byte> bytes);
  uint64_t bytes() const { return bytes_; }  // appended so far
  // Flushes to the disk, closes, and says what was written.
  FileEntry finish();

 private:
  std::string name_;
  std::shared_ptr<OpenFile> file_;
  WriteQueue* queue_;
  uint64_t bytes_ = 0;
};

class StagingFolder {
 public:
  // Refuses a target that exists and a parent that does not. Throws Error when the environment fails.
  static Result<std::unique_ptr<StagingFolder>> create(const std::string& target);
  // Removes the folder and what is in it unless publish() succeeded.
  ~StagingFolder();
  StagingFolder(const StagingFolder&) = delete;
  StagingFolder& operator=(const StagingFolder&) = delete;

  // The folder must outlive it.
  OutputFile new_file(const std::string& name);
  FileEntry write_file(const std::string& name, std::string_view text);
  // Every file must be finished. Refused if the target has appeared meanwhile; nothing is ever replaced.
  Status publish();

 private:
  explicit StagingFolder(const std::string& target);

  std::string target_;
  std::string parent_;
  std::string staging_name_;
  int parent_fd_ = -1;
  int staging_fd_ = -1;
  bool published_ = false;
  std::vector<std::unique_ptr<WriteQueue>> queues_;  // files take turns
  size_t files_ = 0;
};

}  // namespace optserve::checkpoint

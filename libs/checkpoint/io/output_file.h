// New files, which separate threads hash, write and flush.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/io/write_queue.h"
#include "checkpoint/manifest/manifest.h"

namespace optserve::checkpoint {

// There are two queues because only one thread can hash a file, and hashing takes about as long as the rest of a
// conversion.
class WriteQueues {
 public:
  WriteQueues();
  WriteQueue& next();  // files get the queues in turn
  void stop();         // nothing more is written; no file may be used afterwards

 private:
  std::vector<std::unique_ptr<WriteQueue>> queues_;
  size_t files_ = 0;
};

// A new file that is written once, from front to back, by the thread of `queue`, which must outlive it. Throws Error
// when the environment fails (disk full), perhaps only in a later call.
class OutputFile {
 public:
  // In the open folder `folder_fd`; the name must not exist yet. `folder` is for messages.
  OutputFile(int folder_fd, const std::string& folder, const std::string& name, WriteQueue& queue);

  const std::string& name() const { return name_; }
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

}  // namespace optserve::checkpoint

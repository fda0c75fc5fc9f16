#include "checkpoint/io/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <utility>

#include "base/error.h"
#include "base/hex.h"

namespace optserve::checkpoint {
namespace {

constexpr size_t kQueues = 2;
constexpr size_t kQueuedBytesMax = 16 << 20;  // per queue

}  // namespace

WriteQueues::WriteQueues() {
  for (size_t i = 0; i < kQueues; ++i) queues_.push_back(std::make_unique<WriteQueue>(kQueuedBytesMax));
}

WriteQueue& WriteQueues::next() { return *queues_.at(files_++ % kQueues); }

void WriteQueues::stop() { queues_.clear(); }

OutputFile::OutputFile(int folder_fd, const std::string& folder, const std::string& name, WriteQueue& queue)
    : name_(name),
      file_(std::make_shared<OpenFile>(
          openat(folder_fd, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644),
          folder + "/" + name)),
      queue_(&queue) {
  if (file_->fd < 0) throw errno_error("create " + file_->path);
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

}  // namespace optserve::checkpoint

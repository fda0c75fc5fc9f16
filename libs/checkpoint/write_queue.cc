#include "checkpoint/write_queue.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/error.h"

namespace optserve::checkpoint {
namespace {

void write_all(OpenFile& file, std::span<const std::byte> bytes) {
  file.hash.update(bytes);
  while (!bytes.empty()) {
    const ssize_t written = ::write(file.fd, bytes.data(), std::min(bytes.size(), size_t{1} << 30));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw errno_error("write " + file.path);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  // Starts the disk early, so that the fsync at the end has little left. Only a hint: file systems may refuse it.
  sync_file_range(file.fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

}  // namespace

OpenFile::~OpenFile() {
  if (fd >= 0) ::close(fd);
}

WriteQueue::WriteQueue(size_t bytes_max) : bytes_max_(bytes_max), thread_([this] { run(); }) {}

WriteQueue::~WriteQueue() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  wanted_.notify_one();
  thread_.join();
}

void WriteQueue::write(const std::shared_ptr<OpenFile>& file, std::span<const std::byte> bytes) {
  Piece piece{file, {}};
  {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [&] { return failure_ || pieces_.empty() || bytes_ + bytes.size() <= bytes_max_; });
    rethrow();
    if (!free_.empty()) {
      free_bytes_ -= free_.back().capacity();
      piece.bytes = std::move(free_.back());
      free_.pop_back();
    }
  }
  piece.bytes.assign(bytes.begin(), bytes.end());
  {
    const std::lock_guard lock(mutex_);
    bytes_ += bytes.size();
    pieces_.push_back(std::move(piece));
  }
  wanted_.notify_one();
}

void WriteQueue::flush() {
  std::unique_lock lock(mutex_);
  done_.wait(lock, [&] { return failure_ || pieces_.empty(); });
  rethrow();
}

void WriteQueue::rethrow() const {
  if (failure_) std::rethrow_exception(failure_);
}

void WriteQueue::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wanted_.wait(lock, [&] { return ends_ || !pieces_.empty(); });
    if (ends_) return;
    Piece& piece = pieces_.front();  // stays where it is: pieces are only added behind it
    lock.unlock();
    std::exception_ptr failure;
    try {
      write_all(*piece.file, piece.bytes);
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    bytes_ -= piece.bytes.size();
    if (free_bytes_ + piece.bytes.capacity() <= bytes_max_) {
      free_bytes_ += piece.bytes.capacity();
      free_.push_back(std::move(piece.bytes));
    }
    pieces_.pop_front();
    failure_ = failure;
    done_.notify_all();
    if (failure_) return;
  }
}

}  // namespace optserve::checkpoint

#include "checkpoint/write_queue.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include "base/error.h"

namespace optserve::checkpoint {
namespace {

// Only a hint, which file systems may refuse: the next write tells.
void set_direct(OpenFile& file, bool on) {
  const int flags = fcntl(file.fd, F_GETFL);
  const int wanted = on ? flags | O_DIRECT : flags & ~O_DIRECT;
  const bool is_set = flags >= 0 && fcntl(file.fd, F_SETFL, wanted) == 0;
  file.direct = on && is_set ? OpenFile::Direct::kOn : OpenFile::Direct::kOff;
}

void write_block(OpenFile& file, const WriteBlock& block) {
  std::span<const std::byte> bytes(block.memory.get(), block.size);
  file.hash.update(bytes);
  // Only the last block of a file is not whole, so all others begin at a multiple of their size.
  const bool is_whole = block.size == WriteBlock::kBytes;
  if (is_whole && file.direct == OpenFile::Direct::kUntried) set_direct(file, true);
  if (!is_whole && file.direct == OpenFile::Direct::kOn) set_direct(file, false);
  while (!bytes.empty()) {
    const ssize_t written = ::write(file.fd, bytes.data(), bytes.size());
    const bool is_direct = file.direct == OpenFile::Direct::kOn;
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EINVAL && is_direct) {
      set_direct(file, false);
      continue;
    }
    if (written < 0) throw errno_error("write " + file.path);
    bytes = bytes.subspan(static_cast<size_t>(written));
    if (is_direct && static_cast<size_t>(written) % WriteBlock::kAlignment != 0) set_direct(file, false);
  }
  // Starts the disk early, so that the fsync at the end has little left.
  if (file.direct == OpenFile::Direct::kOff) sync_file_range(file.fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

}  // namespace

WriteBlock::WriteBlock() : memory(static_cast<std::byte*>(std::aligned_alloc(kAlignment, kBytes))) {
  if (memory == nullptr) throw std::bad_alloc();
}

OpenFile::~OpenFile() {
  if (fd >= 0) ::close(fd);
}

WriteQueue::WriteQueue(size_t bytes_max)
    : blocks_max_(std::max<size_t>(1, bytes_max / WriteBlock::kBytes)), thread_([this] { run(); }) {}

WriteQueue::~WriteQueue() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  wanted_.notify_one();
  thread_.join();
}

void WriteQueue::write(const std::shared_ptr<OpenFile>& file, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    if (!file->filled) file->filled = take_block();
    WriteBlock& block = *file->filled;
    const size_t count = std::min(bytes.size(), WriteBlock::kBytes - block.size);
    std::memcpy(block.memory.get() + block.size, bytes.data(), count);
    block.size += count;
    bytes = bytes.subspan(count);
    if (block.size == WriteBlock::kBytes) push(file);
  }
}

void WriteQueue::finish(const std::shared_ptr<OpenFile>& file) {
  if (file->filled) push(file);
  std::unique_lock lock(mutex_);
  done_.wait(lock, [&] { return failure_ || pieces_.empty(); });
  rethrow();
}

std::unique_ptr<WriteBlock> WriteQueue::take_block() {
  const std::lock_guard lock(mutex_);
  rethrow();
  if (free_.empty()) return std::make_unique<WriteBlock>();
  std::unique_ptr<WriteBlock> block = std::move(free_.back());
  free_.pop_back();
  return block;
}

void WriteQueue::push(const std::shared_ptr<OpenFile>& file) {
  {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [&] { return failure_ || pieces_.size() < blocks_max_; });
    rethrow();
    pieces_.push_back({file, std::move(file->filled)});
  }
  wanted_.notify_one();
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
      write_block(*piece.file, *piece.block);
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    piece.block->size = 0;
    if (free_.size() < blocks_max_) free_.push_back(std::move(piece.block));
    pieces_.pop_front();
    failure_ = failure;
    done_.notify_all();
    if (failure_) return;
  }
}

}  // namespace optserve::checkpoint

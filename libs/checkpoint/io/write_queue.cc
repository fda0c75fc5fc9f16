#include "checkpoint/io/write_queue.h"

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

// File systems may refuse this; the next write shows whether they did.
void set_direct(OpenFile& file, bool on) {
  const int flags = fcntl(file.fd, F_GETFL);
  const int wanted = on ? flags | O_DIRECT : flags & ~O_DIRECT;
  const bool is_set = flags >= 0 && fcntl(file.fd, F_SETFL, wanted) == 0;
  file.direct = on && is_set ? OpenFile::Direct::kOn : OpenFile::Direct::kOff;
}

void hash_block(OpenFile& file, const WriteBlock& block) {
  file.hash.update(std::span<const std::byte>(block.memory.get(), block.size));
}

void write_block(OpenFile& file, const WriteBlock& block) {
  std::span<const std::byte> bytes(block.memory.get(), block.size);
  // Only the last block of a file may be partly filled, so all blocks begin at a multiple of their size.
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
    : blocks_max_(std::max<size_t>(1, bytes_max / WriteBlock::kBytes)),
      hasher_([this] { run(hash_block, hashed_); }),
      writer_([this] { run(write_block, written_); }) {}

WriteQueue::~WriteQueue() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  wanted_.notify_all();
  hasher_.join();
  writer_.join();
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
  wanted_.notify_all();
}

void WriteQueue::rethrow() const {
  if (failure_) std::rethrow_exception(failure_);
}

void WriteQueue::run(void (*work)(OpenFile&, const WriteBlock&), size_t& done) {
  std::unique_lock lock(mutex_);
  for (;;) {
    wanted_.wait(lock, [&] { return ends_ || failure_ || done < pieces_.size(); });
    if (ends_ || failure_) return;
    const Piece& piece = pieces_[done];  // stays where it is: a deque only changes at its ends
    lock.unlock();
    std::exception_ptr failure;
    try {
      work(*piece.file, *piece.block);
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    if (failure) {
      failure_ = failure;
      wanted_.notify_all();
      done_.notify_all();
      return;
    }
    ++done;
    release_finished();
  }
}

void WriteQueue::release_finished() {
  for (; std::min(hashed_, written_) > 0; --hashed_, --written_) {
    std::unique_ptr<WriteBlock>& block = pieces_.front().block;
    block->size = 0;
    if (free_.size() < blocks_max_) free_.push_back(std::move(block));
    pieces_.pop_front();
  }
  done_.notify_all();
}

}  // namespace optserve::checkpoint

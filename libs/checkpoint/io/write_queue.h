// Hashes files on one thread and writes them on another, each in order. Reading and computing go on meanwhile, and no
// processor waits for the disk.
//
// Whole blocks go to the disk without a copy in the page cache (O_DIRECT) if the file system supports it: a conversion
// writes more than fits into memory, and nobody reads it soon. That halves the processor time of writing.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdlib>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "base/sha256.h"

namespace optserve::checkpoint {

// Bytes of one file that are written together.
struct WriteBlock {
  static constexpr size_t kBytes = 1 << 20;
  static constexpr size_t kAlignment = 4096;  // of memory, length and place in the file, as O_DIRECT needs it

  WriteBlock();
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte[], Free> memory;  // kBytes
  size_t size = 0;
};

// Closed when neither its writer nor a queue needs it any more.
struct OpenFile {
  OpenFile(int descriptor, std::string name) : fd(descriptor), path(std::move(name)) {}
  ~OpenFile();
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  int fd;
  std::string path;                    // for messages
  std::unique_ptr<WriteBlock> filled;  // bytes that the writer has given but no thread works on yet
  Sha256 hash;                         // belongs to the hashing thread until finish()
  // Belongs to the writing thread until finish().
  enum class Direct { kUntried, kOn, kOff } direct = Direct::kUntried;
};

class WriteQueue {
 public:
  // About `bytes_max` bytes may wait at a time, but at least one block, and in addition one block for each open file.
  explicit WriteQueue(size_t bytes_max);
  // Bytes that still wait are not written.
  ~WriteQueue();
  WriteQueue(const WriteQueue&) = delete;
  WriteQueue& operator=(const WriteQueue&) = delete;

  // Appends a copy of `bytes` to the file; waits for room. All bytes of a file must come from one thread. Throws the
  // Error of an earlier write that failed; then nothing more is written.
  void write(const std::shared_ptr<OpenFile>& file, std::span<const std::byte> bytes);
  // Waits until the operating system has all bytes of this file and its hash is complete. Throws as write() does.
  void finish(const std::shared_ptr<OpenFile>& file);

 private:
  struct Piece {
    std::shared_ptr<OpenFile> file;
    std::unique_ptr<WriteBlock> block;
  };

  // The loop of a thread: applies `work` to each piece. `done` counts those of pieces_ that this thread has finished.
  void run(void (*work)(OpenFile&, const WriteBlock&), size_t& done);
  void release_finished();
  void push(const std::shared_ptr<OpenFile>& file);
  std::unique_ptr<WriteBlock> take_block();
  void rethrow() const;

  size_t blocks_max_;
  std::mutex mutex_;                               // guards the rest
  std::condition_variable wanted_;                 // there is a piece, or the end
  std::condition_variable done_;                   // a piece is finished, or failed
  std::deque<Piece> pieces_;                       // until they are hashed and written
  size_t hashed_ = 0;                              // of pieces_, from the front
  size_t written_ = 0;                             // of pieces_, from the front
  std::vector<std::unique_ptr<WriteBlock>> free_;  // blocks that are finished, at most blocks_max_
  bool ends_ = false;
  std::exception_ptr failure_;
  std::thread hasher_;
  std::thread writer_;
};

}  // namespace optserve::checkpoint

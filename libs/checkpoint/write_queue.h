// Hashes and writes files on a thread of its own, in order, so that reading and computing go on meanwhile.
//
// Whole blocks go to the disk without a copy in the page cache (O_DIRECT) where the file system can: a conversion
// writes more than memory holds, and nobody reads it soon. That halves the processor time of writing.
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

#include "checkpoint/sha256.h"

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
  std::unique_ptr<WriteBlock> filled;  // what the writer has given and no thread writes yet
  // The rest is the queue's until finish().
  Sha256 hash;  // of what was written
  enum class Direct { kUntried, kOn, kOff } direct = Direct::kUntried;
};

class WriteQueue {
 public:
  // At most about `bytes_max` wait at a time, at least one block; one more for each open file.
  explicit WriteQueue(size_t bytes_max);
  // What still waits is not written.
  ~WriteQueue();
  WriteQueue(const WriteQueue&) = delete;
  WriteQueue& operator=(const WriteQueue&) = delete;

  // Appends a copy of `bytes` to the file; waits for room. A file is written by one thread. Throws the Error of an
  // earlier write that failed; then nothing more is written.
  void write(const std::shared_ptr<OpenFile>& file, std::span<const std::byte> bytes);
  // Waits until all of this file is with the operating system; then its hash is complete. Throws as write().
  void finish(const std::shared_ptr<OpenFile>& file);

 private:
  struct Piece {
    std::shared_ptr<OpenFile> file;
    std::unique_ptr<WriteBlock> block;
  };

  void run();
  void push(const std::shared_ptr<OpenFile>& file);
  std::unique_ptr<WriteBlock> take_block();
  void rethrow() const;

  size_t blocks_max_;
  std::mutex mutex_;                               // guards the rest
  std::condition_variable wanted_;                 // there is a piece, or the end
  std::condition_variable done_;                   // a piece was written, or failed
  std::deque<Piece> pieces_;                       // the first is at work
  std::vector<std::unique_ptr<WriteBlock>> free_;  // blocks that were written, at most blocks_max_
  bool ends_ = false;
  std::exception_ptr failure_;
  std::thread thread_;
};

}  // namespace optserve::checkpoint

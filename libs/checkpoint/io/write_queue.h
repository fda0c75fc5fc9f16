// Hashes files on one thread and writes them on another, each in order, so that reading and computing go on meanwhile
// and no processor waits for the disk.
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
  std::unique_ptr<WriteBlock> filled;  // what the writer has given and no thread works on yet
  Sha256 hash;                         // the hashing thread's until finish()
  // The writing thread's until finish().
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

  // Appends a copy of `bytes` to the file; waits for room. One thread gives a file its bytes. Throws the Error of an
  // earlier write that failed; then nothing more is written.
  void write(const std::shared_ptr<OpenFile>& file, std::span<const std::byte> bytes);
  // Waits until all of this file is with the operating system; then its hash is complete. Throws as write().
  void finish(const std::shared_ptr<OpenFile>& file);

 private:
  struct Piece {
    std::shared_ptr<OpenFile> file;
    std::unique_ptr<WriteBlock> block;
  };

  // What a thread does with each piece, `done` being its count of the pieces that are still there.
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

// Hashes and writes files on a thread of its own, in order, so that reading and computing go on meanwhile.
#pragma once

#include <condition_variable>
#include <cstddef>
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

// Closed when neither its writer nor a queue needs it any more.
struct OpenFile {
  OpenFile(int descriptor, std::string name) : fd(descriptor), path(std::move(name)) {}
  ~OpenFile();
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  int fd;
  std::string path;  // for messages
  Sha256 hash;       // of what was written
};

class WriteQueue {
 public:
  // At most about `bytes_max` wait at a time.
  explicit WriteQueue(size_t bytes_max);
  // What still waits is not written.
  ~WriteQueue();
  WriteQueue(const WriteQueue&) = delete;
  WriteQueue& operator=(const WriteQueue&) = delete;

  // Appends a copy of `bytes` to the file and its hash, which are the queue's until flush(); waits for room. Throws the
  // Error of an earlier write that failed; then nothing more is written.
  void write(const std::shared_ptr<OpenFile>& file, std::span<const std::byte> bytes);
  // Waits until everything is with the operating system. Throws as write().
  void flush();

 private:
  struct Piece {
    std::shared_ptr<OpenFile> file;
    std::vector<std::byte> bytes;
  };

  void run();
  void rethrow() const;

  size_t bytes_max_;
  std::mutex mutex_;                          // guards the rest
  std::condition_variable wanted_;            // there is a piece, or the end
  std::condition_variable done_;              // a piece was written, or failed
  std::deque<Piece> pieces_;                  // the first is at work
  std::vector<std::vector<std::byte>> free_;  // memory of pieces that were written, at most bytes_max_
  size_t free_bytes_ = 0;                     // their capacity
  size_t bytes_ = 0;                          // in pieces_
  bool ends_ = false;
  std::exception_ptr failure_;
  std::thread thread_;
};

}  // namespace optserve::checkpoint

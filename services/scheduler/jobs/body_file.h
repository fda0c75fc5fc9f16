// Bytes that are kept in a file instead of memory, as long as the process lives. The file has no name, so that it goes
// with its process, and is never synced: it holds nothing that the journal does not.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace optserve::scheduler {

class BodyFile {
 public:
  // In an existing folder on a local disk. Throws Error if it cannot be made there.
  explicit BodyFile(const std::string& folder);
  ~BodyFile();
  BodyFile(const BodyFile&) = delete;
  BodyFile& operator=(const BodyFile&) = delete;

  // Where the bytes are now; nullopt: the disk has no room for them.
  std::optional<uint64_t> put(std::string_view bytes);
  // Gives the bytes back, and their place to others. Throws Error if they cannot be read as they were written.
  std::string take(uint64_t at);

  size_t held() const { return held_; }         // how many were put and not taken
  uint64_t size_bytes() const { return end_; }  // of the file

 private:
  // What a record of `bytes` takes of the file: sizes are few, so that a place fits many others after it.
  static uint64_t room_for(size_t bytes);

  int fd_ = -1;
  size_t held_ = 0;
  uint64_t end_ = 0;
  std::map<uint64_t, std::vector<uint64_t>> free_;  // places, by room
};

}  // namespace optserve::scheduler

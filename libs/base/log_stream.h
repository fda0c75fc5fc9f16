// Where log lines go. Their reader may be slow or stuck, and no service may wait for it.
#pragma once

#include <string>
#include <string_view>

namespace optserve {

class LogStream {
 public:
  // Writes to the file that `fd` refers to, without changing the flags of `fd`, which other processes may share.
  explicit LogStream(int fd);
  ~LogStream();
  LogStream(const LogStream&) = delete;
  LogStream& operator=(const LogStream&) = delete;

  // Writes the line if that is possible at once. False if there was no room, and the whole line was dropped. If there
  // was room for a part of the line, the next call writes the rest.
  bool write(std::string_view line);

 private:
  // Returns how many of the bytes were written.
  size_t write_some(std::string_view bytes) const;

  int fd_;
  int own_fd_ = -1;  // the same file, but without blocking
  bool is_socket_ = false;
  std::string rest_;  // of a line of which a part was written
};

}  // namespace optserve

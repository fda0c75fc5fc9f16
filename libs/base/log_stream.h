// Where log lines go. Who reads them may be slow or stuck, and no service may wait for it.
#pragma once

#include <string>
#include <string_view>

namespace optserve {

class LogStream {
 public:
  // Writes to what `fd` is open for and leaves `fd` itself, which other processes may share, as it is.
  explicit LogStream(int fd);
  ~LogStream();
  LogStream(const LogStream&) = delete;
  LogStream& operator=(const LogStream&) = delete;

  // Writes the line if that is possible at once. False: it found no room and was dropped as a whole. A line that found
  // room for a part is completed by the next call.
  bool write(std::string_view line);

 private:
  // How much of `bytes` was taken, up to all of them.
  size_t write_some(std::string_view bytes) const;

  int fd_;
  int own_fd_ = -1;  // the same file, but without blocking
  bool is_socket_ = false;
  std::string rest_;  // of a line of which a part was written
};

}  // namespace optserve

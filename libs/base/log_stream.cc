#include "base/log_stream.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace optserve {

LogStream::LogStream(int fd) : fd_(fd) {
  struct stat file {};
  is_socket_ = fstat(fd, &file) == 0 && S_ISSOCK(file.st_mode);
  // O_NONBLOCK belongs to the open file and not to the descriptor, so we open the file a second time. That fails if the
  // pipe belongs to another user.
  if (S_ISFIFO(file.st_mode) || S_ISCHR(file.st_mode)) {
    own_fd_ = open(("/proc/self/fd/" + std::to_string(fd)).c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  }
}

LogStream::~LogStream() {
  if (own_fd_ >= 0) close(own_fd_);
}

size_t LogStream::write_some(std::string_view bytes) const {
  size_t taken = 0;
  while (taken < bytes.size()) {
    const std::string_view left = bytes.substr(taken);
    ssize_t written = 0;
    if (is_socket_) {
      written = send(fd_, left.data(), left.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    } else if (own_fd_ >= 0) {
      written = ::write(own_fd_, left.data(), left.size());
    } else {
      // A pipe that is ready takes this much at once, unless another process is faster.
      pollfd ready{fd_, POLLOUT, 0};
      if (poll(&ready, 1, 0) != 1) break;
      written = ::write(fd_, left.data(), std::min<size_t>(left.size(), PIPE_BUF));
    }
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) break;
    taken += static_cast<size_t>(written);
  }
  return taken;
}

bool LogStream::write(std::string_view line) {
  if (!rest_.empty()) {
    rest_.erase(0, write_some(rest_));
    if (!rest_.empty()) return false;
  }
  const size_t taken = write_some(line);
  if (taken == 0 && !line.empty()) return false;
  rest_ = line.substr(taken);
  return true;
}

}  // namespace optserve

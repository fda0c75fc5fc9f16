#include "base/termination.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace optserve {
namespace {

constexpr const char* kDefaultPath = "/dev/termination-log";
constexpr size_t kMessageBytesMax = 4'096;  // what Kubernetes shows

// Returns -1 if there is none. The file stays open, since a process that has locked itself cannot open files for
// writing.
int open_log(const std::string& path) {
  const int create = path.empty() ? 0 : O_CREAT;
  const char* const name = path.empty() ? kDefaultPath : path.c_str();
  const int fd = open(name, O_WRONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW | create, 0644);
  struct stat about {};
  if (fd >= 0 && (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode))) {
    close(fd);
    return -1;
  }
  return fd;
}

int log_fd = -1;

}  // namespace

void set_termination_log(const std::string& path) {
  const int before = std::exchange(log_fd, open_log(path));
  if (before >= 0) close(before);
}

void write_termination_message(std::string_view message) {
  if (log_fd < 0) return;
  std::string line(message.substr(0, kMessageBytesMax - 1));
  std::ranges::replace_if(
      line, [](char c) { return static_cast<unsigned char>(c) < ' '; }, ' ');
  line += '\n';
  [[maybe_unused]] const int truncated = ftruncate(log_fd, 0);
  [[maybe_unused]] const ssize_t written = pwrite(log_fd, line.data(), line.size(), 0);
}

}  // namespace optserve

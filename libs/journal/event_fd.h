// A descriptor that a poll loop watches, signalled from another thread.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>

#include "base/error.h"

namespace optserve::journal {

class EventFd {
 public:
  EventFd() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (fd_ < 0) throw errno_error("eventfd");
  }
  ~EventFd() { ::close(fd_); }
  EventFd(const EventFd&) = delete;
  EventFd& operator=(const EventFd&) = delete;
  void signal() const {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(fd_, &one, sizeof one);  // a full counter is readable anyway
  }
  void clear() const {
    uint64_t count;
    [[maybe_unused]] const ssize_t got = ::read(fd_, &count, sizeof count);  // nothing to read: already cleared
  }
  int fd() const { return fd_; }

 private:
  int fd_;
};

}  // namespace optserve::journal

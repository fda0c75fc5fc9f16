// TCP sockets of a group: owned descriptors that never block, and sends and receives with a deadline.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "base/clock.h"

namespace optserve::comm::tcp {

class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd) : fd_(fd) {}
  ~Socket() { reset(); }
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }

  int fd() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }
  void reset();            // closes
  void shut_down() const;  // wakes whoever waits on it, here and at the peer; from any thread

 private:
  int fd_ = -1;
};

inline constexpr Instant kNoDeadline = Instant::max();

// Listens on this address alone. Empty, with `cause`, when that cannot be done at present.
Socket listen_on(const std::string& host, int port, std::string& cause);
// Empty, with `cause`, when nobody listens there or the name is unknown.
Socket connect_to(const std::string& host, int port, Instant until, std::string& cause);

struct Accepted {
  Socket socket;
  std::string address;  // "10.0.0.7:41234"
};
// A connection that waits, if one does.
std::optional<Accepted> accept_waiting(const Socket& listener);

// kClosed: the peer has closed or is gone, or the socket was shut down here.
enum class Io { kDone, kClosed, kLate };
// `more`: further bytes follow at once and may share a packet.
Io send_all(const Socket& socket, std::span<const uint8_t> bytes, Instant until, bool more = false);
Io receive_all(const Socket& socket, std::span<uint8_t> bytes, Instant until);
// Receives what is there: the number of bytes; 0: nothing yet; -1: closed.
ptrdiff_t receive_some(const Socket& socket, std::span<uint8_t> bytes);

}  // namespace optserve::comm::tcp

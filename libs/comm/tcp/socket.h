// TCP sockets of a group: descriptors with an owner that never block, and sending and receiving with a deadline.
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
  void shut_down() const;  // wakes threads that wait on it, here and at the peer; may be called on any thread

 private:
  int fd_ = -1;
};

// How long a call may wait: until `clock`, which outlives the call, reaches `at`. Instant::max() means without a limit.
struct Deadline {
  const Clock& clock;
  Instant at;
};

// Listens on this address alone. If that is not possible at the moment, the result is not open and `cause` says why.
Socket listen_on(const std::string& host, int port, std::string& cause);
// If nobody listens there or the name is unknown, the result is not open and `cause` says why.
Socket connect_to(const std::string& host, int port, const Deadline& until, std::string& cause);

// The name of the network interface over which this machine reaches an address, such as "eth0"; empty if unknown.
// Nothing is sent.
std::string interface_towards(const std::string& host, int port);

struct Accepted {
  Socket socket;
  std::string address;  // "10.0.0.7:41234"
};
// A connection that waits to be accepted, if there is one.
std::optional<Accepted> accept_waiting(const Socket& listener);

// kLate: the deadline has passed. kClosed: the peer has closed or is gone, or the socket was shut down here. kForged:
// what came was not sealed by the peer, or not as its next piece (only on links, comm/tcp/link.h).
enum class Io { kDone, kClosed, kLate, kForged };
// `more`: further bytes follow at once and may go into the same packet.
Io send_all(const Socket& socket, std::span<const uint8_t> bytes, const Deadline& until, bool more = false);
Io receive_all(const Socket& socket, std::span<uint8_t> bytes, const Deadline& until);
// Receives what has arrived and returns the number of bytes: 0 if there is nothing yet, -1 if the connection is closed.
ptrdiff_t receive_some(const Socket& socket, std::span<uint8_t> bytes);

}  // namespace optserve::comm::tcp

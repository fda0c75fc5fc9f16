#include "comm/tcp/socket.h"

#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

namespace optserve::comm::tcp {
namespace {

// A peer whose host has vanished is given up after about 15 s of silence: keepalive probes detect this on an idle
// connection, unacknowledged bytes on others.
constexpr int kProbeAfterS = 5, kProbeEveryS = 2, kProbes = 5, kUnacknowledgedMs = 15'000;

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

Addresses resolve(const std::string& host, int port, std::string& cause) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int status = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (status != 0) cause = "'" + host + "' cannot be resolved: " + gai_strerror(status);
  return {status == 0 ? found : nullptr, &freeaddrinfo};
}

void set_option(int fd, int level, int name, int value) { setsockopt(fd, level, name, &value, sizeof value); }

void set_options(int fd) {
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, kProbeAfterS);
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, kProbeEveryS);
  set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, kProbes);
  set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, kUnacknowledgedMs);
}

// Milliseconds for poll(), rounded up; 0 once `until` has passed, -1 without a limit.
int poll_ms(const Deadline& until) {
  if (until.at == Instant::max()) return -1;
  const auto left = std::chrono::ceil<milliseconds>(until.at - until.clock.now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 3'600'000));
}

// False once `until` has passed without the event.
bool wait_for(int fd, short events, const Deadline& until) {
  for (;;) {
    const int timeout = poll_ms(until);
    pollfd polled{fd, events, 0};
    if (poll(&polled, 1, timeout) > 0) return true;
    if (timeout == 0) return false;
  }
}

// TCP can connect a local port on which nobody listens to itself.
bool is_connected_to_itself(int fd) {
  sockaddr_storage here{}, there{};
  socklen_t here_bytes = sizeof here, there_bytes = sizeof there;
  return getsockname(fd, reinterpret_cast<sockaddr*>(&here), &here_bytes) == 0 &&
         getpeername(fd, reinterpret_cast<sockaddr*>(&there), &there_bytes) == 0 && here_bytes == there_bytes &&
         std::memcmp(&here, &there, here_bytes) == 0;
}

Socket connect_one(const addrinfo& address, const Deadline& until, std::string& cause) {
  Socket socket(::socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket.is_open()) {
    cause = std::strerror(errno);
    return {};
  }
  if (connect(socket.fd(), address.ai_addr, address.ai_addrlen) != 0 && errno != EINPROGRESS) {
    cause = std::strerror(errno);
    return {};
  }
  int error = ETIMEDOUT;
  socklen_t bytes = sizeof error;
  if (wait_for(socket.fd(), POLLOUT, until)) getsockopt(socket.fd(), SOL_SOCKET, SO_ERROR, &error, &bytes);
  if (error == 0 && is_connected_to_itself(socket.fd())) error = ECONNREFUSED;
  if (error != 0) {
    cause = std::strerror(error);
    return {};
  }
  set_options(socket.fd());
  return socket;
}

std::string host_of(const sockaddr* address, socklen_t bytes) {
  char host[64] = "?";
  getnameinfo(address, bytes, host, sizeof host, nullptr, 0, NI_NUMERICHOST);
  return host;
}

bool must_wait() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

}  // namespace

void Socket::reset() {
  if (fd_ >= 0) close(std::exchange(fd_, -1));
}

void Socket::shut_down() const {
  if (fd_ >= 0) shutdown(fd_, SHUT_RDWR);
}

Socket listen_on(const std::string& host, int port, std::string& cause) {
  const Addresses addresses = resolve(host, port, cause);
  if (addresses == nullptr) return {};
  Socket socket(::socket(addresses->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (socket.is_open()) {
    set_option(socket.fd(), SOL_SOCKET, SO_REUSEADDR, 1);  // connections of an earlier start may not be fully closed
    if (bind(socket.fd(), addresses->ai_addr, addresses->ai_addrlen) == 0 && listen(socket.fd(), SOMAXCONN) == 0) {
      return socket;
    }
  }
  cause = std::strerror(errno);
  return {};
}

Socket connect_to(const std::string& host, int port, const Deadline& until, std::string& cause) {
  const Addresses addresses = resolve(host, port, cause);
  for (const addrinfo* address = addresses.get(); address != nullptr; address = address->ai_next) {
    Socket socket = connect_one(*address, until, cause);
    if (socket.is_open()) return socket;
  }
  return {};
}

std::string interface_towards(const std::string& host, int port) {
  std::string cause;
  const Addresses addresses = resolve(host, port, cause);
  if (addresses == nullptr) return {};
  const Socket socket(::socket(addresses->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_storage own{};
  socklen_t bytes = sizeof own;
  ifaddrs* found = nullptr;
  if (!socket.is_open() || connect(socket.fd(), addresses->ai_addr, addresses->ai_addrlen) != 0 ||
      getsockname(socket.fd(), reinterpret_cast<sockaddr*>(&own), &bytes) != 0 || getifaddrs(&found) != 0) {
    return {};
  }
  const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> interfaces(found, &freeifaddrs);
  const std::string address = host_of(reinterpret_cast<const sockaddr*>(&own), bytes);
  for (const ifaddrs* one = interfaces.get(); one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || one->ifa_addr->sa_family != own.ss_family) continue;
    if (host_of(one->ifa_addr, bytes) == address) return one->ifa_name;
  }
  return {};
}

std::optional<Accepted> accept_waiting(const Socket& listener) {
  sockaddr_storage from{};
  socklen_t bytes = sizeof from;
  auto* address = reinterpret_cast<sockaddr*>(&from);
  Socket socket(accept4(listener.fd(), address, &bytes, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!socket.is_open()) return std::nullopt;
  set_options(socket.fd());
  char host[64] = "?", port[16] = "?";
  getnameinfo(address, bytes, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
  return Accepted{std::move(socket), std::string(host) + ":" + port};
}

Io send_all(const Socket& socket, std::span<const uint8_t> bytes, const Deadline& until, bool more) {
  while (!bytes.empty()) {
    const ssize_t sent = send(socket.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL | (more ? MSG_MORE : 0));
    if (sent > 0) {
      bytes = bytes.subspan(static_cast<size_t>(sent));
    } else if (sent < 0 && must_wait()) {
      if (!wait_for(socket.fd(), POLLOUT, until)) return Io::kLate;
    } else {
      return Io::kClosed;
    }
  }
  return Io::kDone;
}

Io receive_all(const Socket& socket, std::span<uint8_t> bytes, const Deadline& until) {
  while (!bytes.empty()) {
    const ptrdiff_t received = receive_some(socket, bytes);
    if (received < 0) return Io::kClosed;
    bytes = bytes.subspan(static_cast<size_t>(received));
    if (received == 0 && !wait_for(socket.fd(), POLLIN, until)) return Io::kLate;
  }
  return Io::kDone;
}

ptrdiff_t receive_some(const Socket& socket, std::span<uint8_t> bytes) {
  const ssize_t received = recv(socket.fd(), bytes.data(), bytes.size(), 0);
  if (received > 0) return received;
  return received < 0 && must_wait() ? 0 : -1;
}

}  // namespace optserve::comm::tcp

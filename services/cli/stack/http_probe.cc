#include "cli/stack/http_probe.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <string_view>

#include "base/clock.h"

namespace optserve::cli {
namespace {

constexpr size_t kAnswerBytesMax = 16 << 20;

// A non-blocking connection with one deadline for everything.
class ProbeConnection {
 public:
  ProbeConnection(Instant deadline, const Clock& clock) : deadline_(deadline), clock_(clock) {}
  ~ProbeConnection() {
    if (fd_ >= 0) close(fd_);
  }
  ProbeConnection(const ProbeConnection&) = delete;
  ProbeConnection& operator=(const ProbeConnection&) = delete;

  bool open(int port) {
    fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd_ < 0) return false;
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return true;
    if (errno != EINPROGRESS || !wait_for(POLLOUT)) return false;
    int error = 0;
    socklen_t size = sizeof error;
    return getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
  }

  bool send_all(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent > 0) {
        bytes.remove_prefix(static_cast<size_t>(sent));
      } else if (errno != EAGAIN || !wait_for(POLLOUT)) {
        return false;
      }
    }
    return true;
  }

  // Until the peer closes.
  bool receive_all(std::string& bytes) {
    std::array<char, 16384> buffer{};
    while (bytes.size() <= kAnswerBytesMax) {
      const ssize_t got = recv(fd_, buffer.data(), buffer.size(), 0);
      if (got == 0) return true;
      if (got > 0) {
        bytes.append(buffer.data(), static_cast<size_t>(got));
      } else if (errno != EAGAIN || !wait_for(POLLIN)) {
        return false;
      }
    }
    return false;
  }

 private:
  bool wait_for(short events) const {
    const auto left = std::chrono::ceil<milliseconds>(deadline_ - clock_.now()).count();
    pollfd entry{fd_, events, 0};
    return left > 0 && poll(&entry, 1, static_cast<int>(left)) > 0;
  }

  Instant deadline_;
  const Clock& clock_;
  int fd_ = -1;
};

}  // namespace

std::optional<HttpAnswer> http_get(int port, const std::string& path, milliseconds timeout, const Clock& clock) {
  ProbeConnection connection(clock.now() + timeout, clock);
  if (!connection.open(port)) return std::nullopt;
  if (!connection.send_all("GET " + path + " HTTP/1.0\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")) {
    return std::nullopt;
  }
  std::string bytes;
  if (!connection.receive_all(bytes)) return std::nullopt;
  const size_t space = bytes.find(' ');
  const size_t body = bytes.find("\r\n\r\n");
  if (!bytes.starts_with("HTTP/1.") || space == std::string::npos || body == std::string::npos) return std::nullopt;
  HttpAnswer answer;
  const char* digits = bytes.data() + space + 1;
  if (std::from_chars(digits, bytes.data() + body, answer.status).ec != std::errc()) return std::nullopt;
  answer.body = bytes.substr(body + 4);
  return answer;
}

}  // namespace optserve::cli

// A raw TCP client for tests of the server: sends bytes as they are, and gives up after 8 s.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"

namespace optserve::http {

class TestClient {
 public:
  // `receive_buffer` is the size of the socket's buffer in bytes; 0: the system's default.
  explicit TestClient(int port, int receive_buffer = 0) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    const timeval limit{8, 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (receive_buffer > 0) setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) throw errno_error("connect");
  }
  ~TestClient() { close(); }
  TestClient(const TestClient&) = delete;
  TestClient& operator=(const TestClient&) = delete;

  // False if the server takes no more bytes.
  bool write(std::string_view text) const {
    while (!text.empty()) {
      const ssize_t sent = send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      text.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }
  int fd() const { return fd_; }
  void close_sending_side() const { shutdown(fd_, SHUT_WR); }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

  // Reads until the server closes. Ends with "(timeout)" if it does not, and with "(reset)" if it resets.
  std::string read_all() {
    while (receive()) {
    }
    return std::exchange(bytes_, {}) + ending_;
  }
  // Reads at most so many bytes at once, like a slow reader.
  std::string read_some(size_t bytes) const {
    std::string text(bytes, '\0');
    const ssize_t got = recv(fd_, text.data(), bytes, 0);
    text.resize(static_cast<size_t>(std::max<ssize_t>(got, 0)));
    return text;
  }
  // Reads up to and including `mark`; less if the connection ends before.
  std::string read_until(std::string_view mark) {
    size_t at = 0;
    while ((at = bytes_.find(mark)) == std::string::npos && receive()) {
    }
    if (at == std::string::npos) return std::exchange(bytes_, {}) + ending_;
    const std::string text = bytes_.substr(0, at + mark.size());
    bytes_.erase(0, text.size());
    return text;
  }
  // Reads one answer that has a Content-Length.
  std::string read_answer() {
    std::string head = read_until("\r\n\r\n");
    const size_t at = head.find("Content-Length: ");
    const size_t length = at == std::string::npos ? 0 : std::stoul(head.substr(at + 16));
    while (bytes_.size() < length && receive()) {
    }
    head += bytes_.substr(0, length);
    bytes_.erase(0, length);
    return head;
  }

 private:
  bool receive() {
    char buffer[16384];
    const ssize_t got = recv(fd_, buffer, sizeof buffer, 0);
    if (got > 0) bytes_.append(buffer, static_cast<size_t>(got));
    if (got < 0) ending_ = errno == EAGAIN ? "(timeout)" : "(reset)";
    return got > 0;
  }

  int fd_;
  std::string bytes_;
  std::string ending_;
};

}  // namespace optserve::http

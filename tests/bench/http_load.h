// HTTP connections of a load, driven by one thread with epoll: each has one request at a time, and a callback gets its
// answer, or the frames of a stream as they arrive.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace optserve::bench {

class HttpConnection {
 public:
  struct Answer {
    int status = 0;
    std::string head, body;
  };

  explicit HttpConnection(int port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) throw errno_error("connect");
    const int on = 1;
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  ~HttpConnection() { close(fd_); }
  HttpConnection(const HttpConnection&) = delete;
  HttpConnection& operator=(const HttpConnection&) = delete;

  int fd() const { return fd_; }
  bool is_busy() const { return is_busy_; }

  void post(std::string_view path, std::string_view body, std::function<void(Answer)> done,
            std::string_view fields = "") {
    send("POST " + std::string(path) + " HTTP/1.1\r\nHost: x\r\n" + std::string(fields) +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + std::string(body));
    on_done_ = std::move(done);
  }
  // The answer to what was posted is a stream.
  void on_stream(std::function<void(std::string_view piece)> on_piece) { on_piece_ = std::move(on_piece); }
  // A stream: `on_piece` gets its head, and its content with the frames of its chunks.
  void stream(std::string_view path, std::function<void(std::string_view piece)> on_piece) {
    send("GET " + std::string(path) + " HTTP/1.1\r\nHost: x\r\n\r\n");
    on_piece_ = std::move(on_piece);
  }

  // When something can be read. False: the peer has closed.
  bool read() {
    std::array<char, 65'536> buffer{};
    const ssize_t got = recv(fd_, buffer.data(), buffer.size(), 0);
    if (got <= 0) return false;
    const std::string_view piece(buffer.data(), static_cast<size_t>(got));
    if (on_piece_) {
      on_piece_(piece);
      return true;
    }
    bytes_ += piece;
    const size_t head = bytes_.find("\r\n\r\n");
    if (head == std::string::npos) return true;
    const size_t field = bytes_.find("Content-Length: ");
    const size_t length = field < head ? std::stoul(bytes_.substr(field + 16)) : 0;
    if (bytes_.size() < head + 4 + length) return true;
    Answer answer{std::stoi(bytes_.substr(9, 3)), bytes_.substr(0, head), bytes_.substr(head + 4, length)};
    bytes_.erase(0, head + 4 + length);
    is_busy_ = false;
    const auto done = std::move(on_done_);
    done(std::move(answer));
    return true;
  }

 private:
  void send(const std::string& text) {
    is_busy_ = true;
    if (::send(fd_, text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size())) {
      throw errno_error("send");
    }
  }

  int fd_;
  bool is_busy_ = false;
  std::string bytes_;
  std::function<void(Answer)> on_done_;
  std::function<void(std::string_view)> on_piece_;
};

class HttpLoad {
 public:
  explicit HttpLoad(int port) : port_(port), epoll_(epoll_create1(EPOLL_CLOEXEC)) {}
  ~HttpLoad() { close(epoll_); }
  HttpLoad(const HttpLoad&) = delete;
  HttpLoad& operator=(const HttpLoad&) = delete;

  HttpConnection& connect() {
    HttpConnection& connection = *connections_.emplace_back(std::make_unique<HttpConnection>(port_));
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = &connection;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, connection.fd(), &event) != 0) throw errno_error("epoll_ctl");
    return connection;
  }
  size_t size() const { return connections_.size(); }
  // Handles what has arrived; waits for something to arrive for at most this long.
  void step(int wait_ms) {
    std::array<epoll_event, 256> events{};
    const int count = epoll_wait(epoll_, events.data(), events.size(), wait_ms);
    for (int i = 0; i < count; ++i) {
      auto& connection = *static_cast<HttpConnection*>(events[static_cast<size_t>(i)].data.ptr);
      if (!connection.read()) epoll_ctl(epoll_, EPOLL_CTL_DEL, connection.fd(), nullptr);
    }
  }

 private:
  int port_, epoll_;
  std::vector<std::unique_ptr<HttpConnection>> connections_;
};

}  // namespace optserve::bench

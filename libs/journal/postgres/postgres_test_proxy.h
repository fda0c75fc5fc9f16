// For tests: a proxy between a client and a server's socket that cuts connections after a number of bytes.
#pragma once

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <list>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"

namespace optserve::journal::testing {

class TestProxy {
 public:
  explicit TestProxy(std::string server_socket) : server_(std::move(server_socket)) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    check(::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) == 0 && ::listen(listener_, 16) == 0,
          "listen");
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { run(); });
  }
  ~TestProxy() {
    stopping_ = true;
    thread_.join();
    for (const Link& link : links_) close(link);
    ::close(listener_);
  }
  TestProxy(const TestProxy&) = delete;
  TestProxy& operator=(const TestProxy&) = delete;

  std::string url() const {
    return "postgresql://optserve@127.0.0.1:" + std::to_string(port_) + "/postgres?gssencmode=disable&sslmode=disable";
  }
  // Cuts once this many more bytes have gone to the server, or have come from it. What was read before the cut is
  // passed on.
  void cut_after(int64_t to_server, int64_t to_client) {
    to_client_left_ = to_client;
    to_server_left_ = to_server;
    cut_is_set_ = true;
  }
  // Stops passing anything on, as if the network were gone; connections stay open.
  void hold(bool hold) { holding_ = hold; }
  uint64_t cuts() const { return cuts_; }

 private:
  struct Link {
    int client = -1, server = -1;
  };
  static void close(const Link& link) {
    ::close(link.client);
    ::close(link.server);
  }

  void accept() {
    const int client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0) return;
    const int server = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, server_.c_str(), sizeof address.sun_path - 1);
    if (::connect(server, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
      close({client, server});
      return;
    }
    links_.push_back({client, server});
  }

  // False if the connection must end.
  bool pass(int from, int to, std::atomic<int64_t>& left) {
    char buffer[4096];
    size_t wanted = sizeof buffer;
    if (cut_is_set_) wanted = static_cast<size_t>(std::clamp<int64_t>(left, 0, sizeof buffer));
    if (wanted == 0) {
      cut_is_set_ = false;
      ++cuts_;
      return false;
    }
    const ssize_t got = ::recv(from, buffer, wanted, 0);
    if (got <= 0) return false;
    left -= got;
    return ::send(to, buffer, static_cast<size_t>(got), MSG_NOSIGNAL) == got;
  }

  void run() {
    while (!stopping_) {
      std::vector<pollfd> waiting{{listener_, POLLIN, 0}};
      if (holding_) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        continue;
      }
      for (const Link& link : links_) {
        waiting.push_back({link.client, POLLIN, 0});
        waiting.push_back({link.server, POLLIN, 0});
      }
      if (::poll(waiting.data(), waiting.size(), 10) <= 0 || holding_) continue;
      size_t at = 1;
      for (auto link = links_.begin(); link != links_.end(); at += 2) {
        bool alive = true;
        if (waiting[at].revents != 0) alive = pass(link->client, link->server, to_server_left_);
        if (alive && waiting[at + 1].revents != 0) alive = pass(link->server, link->client, to_client_left_);
        if (!alive) close(*link);
        link = alive ? std::next(link) : links_.erase(link);
      }
      if (waiting[0].revents != 0) accept();
    }
  }

  const std::string server_;
  int listener_ = -1;
  int port_ = 0;
  std::list<Link> links_;
  std::atomic<int64_t> to_server_left_{0}, to_client_left_{0};
  std::atomic<bool> cut_is_set_{false}, holding_{false}, stopping_{false};
  std::atomic<uint64_t> cuts_{0};
  std::thread thread_;
};

}  // namespace optserve::journal::testing

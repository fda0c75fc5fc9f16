// /metrics, /livez, /readyz and /startupz of a process, on its own thread. The only includer of libevent.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "metrics/metrics.h"

namespace optserve {

// What the health endpoints report. Set by the process, read by the server's thread.
struct Health {
  std::atomic<bool> started{false};     // /startupz: initialisation is done
  std::atomic<bool> ready{false};       // /readyz: takes work now
  std::atomic<int64_t> alive_at_ms{0};  // /livez: steady-clock milliseconds of the main loop's last turn
  int64_t alive_within_ms = 10'000;     // older than this: not alive
  void stamp();                         // sets alive_at_ms to now
};

// Serves GET and HEAD of the four paths, one request a connection. A peer has 5 s for its request of at most 8 KiB and
// for reading the answer; 8 connections at a time, further ones wait in the backlog. The text of /metrics may be 0.2 s
// old.
class HttpServer {
 public:
  // Port 0 picks a free one. Throws Error naming the address if it cannot listen.
  HttpServer(const std::string& address, int port, const Registry& registry, const Health& health);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;
  int port() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace optserve

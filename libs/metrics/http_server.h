// /metrics, /livez, /readyz and /startupz of a process, on its own thread. The only includer of libevent.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "base/clock.h"
#include "metrics/metrics.h"

namespace optserve::metrics {

// What the health endpoints report. Set by the process, read by the server's thread.
struct Health {
  explicit Health(const Clock& of) : clock(of) {}

  const Clock& clock;                   // of the process; outlives this
  std::atomic<bool> started{false};     // /startupz: initialisation is done
  std::atomic<bool> ready{false};       // /readyz: the process takes work now
  std::atomic<int64_t> alive_at_ms{0};  // /livez: when the main loop last turned, in steady milliseconds; 0: not yet
  int64_t alive_within_ms = 10'000;     // a process whose last turn is older than this is not alive

  int64_t now_ms() const;  // of the clock, in steady milliseconds
  void stamp();            // sets alive_at_ms to now
  // Why the process is not ready, for /readyz; empty: there is nothing to say. May be called by any thread.
  void set_problem(const std::string& problem);
  std::string problem() const;

 private:
  mutable std::mutex mutex_;
  std::string problem_;  // guarded by mutex_
};

// Serves GET and HEAD of the four paths, one request per connection. A peer has 5 s to send its request of at most 8
// KiB and to read the answer. Eight connections are served at a time; further ones wait in the backlog of the socket.
// The text of /metrics may be 0.2 s old.
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

}  // namespace optserve::metrics

// What the benchmarks of this folder share: a service loop in a thread of its own, and what its peers need not do.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <thread>

#include "metrics/metrics.h"
#include "transport/service_loop.h"

namespace optserve::bench {

inline int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

struct Figure {
  std::string name, unit;
  double value;
};

// Runs a service over one connection or two ports in a thread of its own.
class LoopThread {
 public:
  LoopThread(transport::Service& service, const std::function<void(transport::ServiceLoop&)>& open)
      : loop_(service, clock_, registry_) {
    open(loop_);
  }
  ~LoopThread() { stop(); }
  void start() {
    thread_ = std::thread([this] {
      while (!stopping_) loop_.turn(milliseconds(1));
    });
  }
  void stop() {
    stopping_ = true;
    if (thread_.joinable()) thread_.join();
  }
  transport::ServiceLoop& loop() { return loop_; }

 private:
  SystemClock clock_;
  metrics::Registry registry_;
  transport::ServiceLoop loop_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

class BenchPeer : public transport::Service {
 public:
  void on_undeliverable(const transport::Peer&, protocol::Message, bool, Instant, transport::Outbox&) override {}
  void on_tick(Instant, transport::Outbox&) override {}
  Duration tick_interval() const override { return milliseconds(1); }
  void begin_drain(Instant, transport::Outbox&) override {}
  bool is_drained() const override { return true; }
};

}  // namespace optserve::bench

// What the benchmarks of this folder share: their main function, figures, folders, and service loops in threads.
#pragma once

#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "metrics/metrics.h"
#include "transport/service_loop.h"

namespace optserve::bench {

inline int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Runs a benchmark and returns the exit status of the program.
inline int run_benchmark(const char* program, const std::function<void()>& body) {
  try {
    init_logging("bench", "error", LogFormat::kText);
    body();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", program, error.what());
    return 1;
  }
}

struct Figure {
  std::string name, unit;
  double value;
};

// Adds the median and the 99th percentile of `nanoseconds`, in ms, to `figures`. Sorts `nanoseconds`.
inline void add_quantiles(std::vector<Figure>& figures, const std::string& name, std::vector<int64_t>& nanoseconds) {
  if (nanoseconds.empty()) return;
  std::sort(nanoseconds.begin(), nanoseconds.end());
  const auto at = [&](double q) {
    return static_cast<double>(nanoseconds[static_cast<size_t>(q * static_cast<double>(nanoseconds.size() - 1))]) *
           1e-6;
  };
  figures.push_back({name + ", median", "ms", at(0.5)});
  figures.push_back({name + ", p99", "ms", at(0.99)});
}

// The memory of this process that is in RAM.
inline double resident_mib() {
  std::ifstream statm("/proc/self/statm");
  double total = 0, resident = 0;
  statm >> total >> resident;
  return resident * static_cast<double>(::sysconf(_SC_PAGESIZE)) / (1 << 20);
}

// A fresh folder below `under` for a journal. It is removed at the end of the scope.
class BenchFolder {
 public:
  explicit BenchFolder(const std::string& under) : path_(under + "/optserve-bench-XXXXXX") {
    if (::mkdtemp(path_.data()) == nullptr) throw errno_error("mkdtemp " + path_);
  }
  ~BenchFolder() { std::filesystem::remove_all(path_); }
  BenchFolder(const BenchFolder&) = delete;
  BenchFolder& operator=(const BenchFolder&) = delete;
  std::string journal() const { return path_ + "/journal.db"; }

 private:
  std::string path_;
};

// An endpoint to bind that nothing else uses. `transport`: tcp or ipc. `name` tells two endpoints of a process apart.
inline std::string any_endpoint(const std::string& transport, const std::string& name) {
  if (transport == "tcp") return "tcp://127.0.0.1:0";
  if (transport != "ipc") throw Error("transport: expected tcp or ipc, found '" + transport + "'");
  return "ipc://" + (std::filesystem::temp_directory_path() / ("optserve-bench-" + std::to_string(getpid()))).string() +
         "-" + name;
}

// Runs a service in a thread of its own, over the ports that `open` gives it.
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

// A peer that ignores whatever its benchmark does not measure.
class BenchPeer : public transport::Service {
 public:
  void on_undeliverable(const transport::Peer&, protocol::Message, bool, Instant, transport::Outbox&) override {}
  void on_tick(Instant, transport::Outbox&) override {}
  Duration tick_interval() const override { return milliseconds(1); }
  void begin_drain(Instant, transport::Outbox&) override {}
  bool is_drained() const override { return true; }
};

}  // namespace optserve::bench

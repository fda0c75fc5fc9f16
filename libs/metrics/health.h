// What the health endpoints of a process report (http/health_server.h). Set by the process, read by its HTTP server.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>

#include "base/clock.h"

namespace optserve::metrics {

struct Health {
  explicit Health(const Clock& of) : clock(of) {}

  const Clock& clock;                     // of the process; outlives this
  std::atomic<bool> started{false};       // /startupz: initialisation is done
  std::atomic<bool> ready{false};         // /readyz: the process takes work now
  std::atomic<int64_t> alive_at_ms{0};    // /livez: when the main loop last turned, in steady milliseconds; 0: not yet
  std::atomic<int64_t> loaded_bytes{0};   // with bytes_to_load: the progress of the initialisation, for /startupz
  std::atomic<int64_t> bytes_to_load{0};  // 0: not known
  int64_t alive_within_ms = 10'000;       // a process whose last turn is older than this is not alive

  int64_t now_ms() const;  // the time of `clock`, in steady milliseconds
  void stamp();            // sets alive_at_ms to now
  // Why the process is not ready, for /readyz; empty if there is nothing to say. May be called by any thread.
  void set_problem(const std::string& problem);
  std::string problem() const;
  // "loaded 300 of 1200 bytes (25%)"; empty before anything is known.
  std::string load_progress() const;

 private:
  mutable std::mutex mutex_;
  std::string problem_;  // guarded by mutex_
};

}  // namespace optserve::metrics

// The parent of a worker group's ranks on this host: starts one process per rank, and ends and replaces all of them
// together when one dies or hangs. It loads no weights and opens no device. When a group spans hosts, the ranks of the
// other hosts end by themselves, and all meet again.
#pragma once

#include <optional>
#include <string>

#include "metrics/http_server.h"
#include "metrics/metrics.h"
#include "worker/group_status.h"
#include "worker/options.h"
#include "worker/rank_processes.h"

namespace optserve::worker {

class Supervisor {
 public:
  Supervisor(const WorkerOptions& options, metrics::Registry& metrics, metrics::Health& health, const Clock& clock);
  // Until SIGTERM has drained the group, or the group cannot be configured. Returns the process's exit status.
  int run();

 private:
  enum class Ending { kDrained, kConfiguration, kFailed };

  // One life of the group, from start to the death of its last process.
  Ending run_group();
  void start_ranks(int group_fd, size_t group_bytes, int status_fd, int lifeline_fd);
  bool has_loaded(const GroupStatus& status) const;
  // Host 0 knows of the scheduler; the others are ready once they have loaded.
  bool is_ready(const GroupStatus& status) const;
  // What ended the group, if something did.
  std::optional<Ending> look(const GroupStatus& status);
  std::optional<std::string> find_hung_rank(const GroupStatus& status) const;
  void wait_for_event() const;
  // Sleeps before the next start; false if a shutdown came meanwhile.
  bool back_off();

  int64_t now_ms() const { return monotonic_ms(clock_); }

  const WorkerOptions& options_;
  const Clock& clock_;
  metrics::Health& health_;
  metrics::Counter restarts_;
  metrics::Gauge ready_;
  RankProcesses ranks_;
  int64_t started_at_ms_ = 0;
  int64_t back_off_ms_ = 0;
  bool draining_ = false;
  int64_t drain_until_ms_ = 0;
};

}  // namespace optserve::worker

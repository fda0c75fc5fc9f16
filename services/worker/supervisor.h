// The parent of the ranks that a group has on this host. It starts a process for each rank, and when one dies or hangs
// it ends and replaces all of them. It loads no weights and opens no device. If a group spans hosts, the ranks of the
// other hosts notice the loss and end too, and then all of them form a new group.
#pragma once

#include <optional>
#include <string>

#include "metrics/health.h"
#include "metrics/metrics.h"
#include "worker/group_status.h"
#include "worker/options.h"
#include "worker/rank_processes.h"

namespace optserve::worker {

class Supervisor {
 public:
  Supervisor(const WorkerOptions& options, metrics::Registry& metrics, metrics::Health& health, const Clock& clock);
  // Returns the exit status of the process, after SIGTERM has drained the group or a rank found that its configuration
  // cannot work.
  int run();

 private:
  enum class Ending { kDrained, kConfiguration, kFailed };

  // One life of the group, from start to the death of its last process.
  Ending run_group();
  void start_ranks(int group_fd, size_t group_bytes, int status_fd, int lifeline_fd);
  bool has_loaded(const GroupStatus& status) const;
  // Host 0 is ready once it is registered with a scheduler, the others are once they have loaded.
  bool is_ready(const GroupStatus& status) const;
  // Health and metrics.
  void show(const GroupStatus& status);
  // What ended the group, if something did.
  std::optional<Ending> look(const GroupStatus& status);
  std::optional<std::string> find_hung_rank(const GroupStatus& status) const;
  void wait_for_event() const;
  // Sleeps before the next start. False if a shutdown was asked for meanwhile.
  bool back_off();

  int64_t now_ms() const { return monotonic_ms(clock_); }

  const WorkerOptions& options_;
  const Clock& clock_;
  metrics::Health& health_;
  metrics::Counter restarts_, lost_, hung_;
  metrics::Gauge ready_, members_loading_, members_loaded_, heartbeat_age_;
  RankProcesses ranks_;
  int64_t started_at_ms_ = 0;
  int64_t back_off_ms_ = 0;
  bool draining_ = false;
  int64_t drain_until_ms_ = 0;
};

}  // namespace optserve::worker

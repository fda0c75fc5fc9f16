#include "worker/supervisor.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "base/error.h"
#include "base/log.h"
#include "base/shutdown.h"
#include "comm/communicator.h"

namespace optserve::worker {
namespace {

constexpr int64_t kBackOffFirstMs = 250;
constexpr int64_t kBackOffMaxMs = 60'000;
constexpr int64_t kHealthyAfterMs =
    60'000;  // after a group that lived for so long, the back-off starts from the beginning
constexpr int kWatchIntervalMs = 100;
constexpr int64_t kSilentMs = 15'000;  // rank 0 shows ten times a second that it is alive

// A descriptor that is closed at the end of its scope.
struct OwnedFd {
  int fd = -1;
  ~OwnedFd() {
    if (fd >= 0) close(fd);
  }
};

metrics::Counter loss_counter(metrics::Registry& registry, const char* reason) {
  return registry.counter("optserve_worker_group_losses_total",
                          "Ends of the group that nobody asked for: a rank ended, or did not go on",
                          {{"reason", reason}});
}

metrics::Gauge member_gauge(metrics::Registry& registry, const char* state) {
  return registry.gauge("optserve_worker_group_members", "Ranks of this host", {{"state", state}});
}

}  // namespace

Supervisor::Supervisor(const WorkerOptions& options, metrics::Registry& metrics, metrics::Health& health,
                       const Clock& clock)
    : options_(options),
      clock_(clock),
      health_(health),
      restarts_(metrics.counter("optserve_worker_group_restarts_total", "Starts of the group after the first one")),
      lost_(loss_counter(metrics, "rank_ended")),
      hung_(loss_counter(metrics, "rank_hung")),
      ready_(metrics.gauge("optserve_worker_group_ready", "1 while the group is registered with a scheduler")),
      members_loading_(member_gauge(metrics, "loading")),
      members_loaded_(member_gauge(metrics, "loaded")),
      heartbeat_age_(metrics.gauge("optserve_worker_heartbeat_age_seconds",
                                   "Time since rank 0 of this host's group last showed that it is alive")) {}

int Supervisor::run() {
  for (;;) {
    const Ending ending = run_group();
    ready_.set(0);
    members_loaded_.set(0);
    members_loading_.set(options_.local_world());
    health_.ready.store(false);
    if (ending == Ending::kDrained) return kExitOk;
    if (ending == Ending::kConfiguration) return kExitConfiguration;
    if (!options_.bench.empty()) return kExitFailed;  // for a benchmark there is no second try
    if (!back_off()) return kExitOk;
    restarts_.add();
  }
}

void Supervisor::start_ranks(int group_fd, size_t group_bytes, int status_fd, int lifeline_fd) {
  const int given = options_.rank_http_port;
  const int first_port = given >= 0 ? given : options_.common.http_port == 0 ? 0 : options_.common.http_port + 1;
  for (int local_rank = 0; local_rank < options_.local_world(); ++local_rank) {
    const int rank = options_.first_rank() + local_rank;
    const int http_port = first_port == 0 ? 0 : first_port + local_rank;
    WorkerOptions options = options_;
    options.common.http_port = http_port;
    options.rank = rank;
    options.group_fd = group_fd;
    options.group_bytes = static_cast<int64_t>(group_bytes);
    options.status_fd = status_fd;
    options.lifeline_fd = lifeline_fd;
    ranks_.start(rank, command_line(options), {group_fd, status_fd, lifeline_fd});
  }
}

Supervisor::Ending Supervisor::run_group() {
  const GroupStatusMemory status = GroupStatusMemory::create();
  const comm::ProcessGroupMemory memory = comm::create_process_group_memory(options_.world);
  const OwnedFd group_fd{memory.fd};
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw errno_error("pipe2");
  const OwnedFd lifeline_read{ends[0]};
  const OwnedFd lifeline_write{ends[1]};
  started_at_ms_ = now_ms();
  start_ranks(memory.fd, memory.bytes, status.fd(), lifeline_read.fd);
  log_info("group_started", {{"world", options_.world},
                             {"first_rank", options_.first_rank()},
                             {"ranks", options_.local_world()},
                             {"model", options_.model_name()}});
  for (;;) {
    health_.stamp();
    if (const auto ending = look(*status)) {
      ranks_.kill_all();
      return *ending;
    }
    show(*status);
    wait_for_event();
  }
}

void Supervisor::show(const GroupStatus& status) {
  int64_t loaded = 0, to_load = 0;
  int members = 0;
  for (int rank = options_.first_rank(); rank < options_.first_rank() + options_.local_world(); ++rank) {
    loaded += status.loaded_bytes[rank].load();
    to_load += status.bytes_to_load[rank].load();
    members += status.loaded[rank].load() != 0 ? 1 : 0;
  }
  health_.loaded_bytes.store(loaded);
  health_.bytes_to_load.store(to_load);
  members_loaded_.set(members);
  members_loading_.set(options_.local_world() - members);
  const int64_t alive_at = status.alive_at_ms.load();
  heartbeat_age_.set(alive_at == 0 ? 0 : static_cast<double>(now_ms() - alive_at) / 1'000);
  // Set only once: when a group is restarted, it is not ready, but the process has started.
  if (has_loaded(status)) health_.started.store(true);
  const bool ready = is_ready(status) && !draining_;
  health_.ready.store(ready);
  health_.set_problem(draining_             ? "draining"
                      : !has_loaded(status) ? "the ranks are loading the model; " + health_.load_progress()
                                            : "rank 0 is not registered with a scheduler; its /readyz says why");
  ready_.set(ready ? 1 : 0);
}

bool Supervisor::has_loaded(const GroupStatus& status) const {
  for (int local_rank = 0; local_rank < options_.local_world(); ++local_rank) {
    if (status.loaded[options_.first_rank() + local_rank].load() == 0) return false;
  }
  return true;
}

bool Supervisor::is_ready(const GroupStatus& status) const {
  return options_.node_rank == 0 ? status.ready.load() != 0 : has_loaded(status);
}

std::optional<Supervisor::Ending> Supervisor::look(const GroupStatus& status) {
  if (shutdown_requested() && !draining_) {
    draining_ = true;
    drain_until_ms_ = now_ms() + options_.drain_ms + 2'000;
    log_info("draining", {{"deadline_ms", options_.drain_ms}});
    ranks_.signal_rank(0, SIGTERM);  // when its jobs are done, rank 0 ends the other ranks, on all hosts
  }
  while (const auto ended = ranks_.poll_exit()) {
    const bool clean = WIFEXITED(ended->status) && WEXITSTATUS(ended->status) == kExitOk;
    if (clean && (draining_ || !options_.bench.empty())) continue;
    if (WIFEXITED(ended->status) && WEXITSTATUS(ended->status) == kExitConfiguration) {
      log_error("group_misconfigured", {{"cause", ended->describe()}});
      return Ending::kConfiguration;
    }
    log_error("group_lost", {{"cause", ended->describe()}});
    if (!draining_) lost_.add();
    return draining_ ? Ending::kDrained : Ending::kFailed;
  }
  if (ranks_.all_gone()) return Ending::kDrained;
  if (draining_ && !has_loaded(status)) return Ending::kDrained;  // no job has begun
  if (draining_ && (shutdown_forced() || now_ms() > drain_until_ms_)) {
    log_warn("drain_cut_short");
    return Ending::kDrained;
  }
  if (const auto hung = find_hung_rank(status)) {
    log_error("group_hung", {{"cause", *hung}});
    if (!draining_) hung_.add();
    return draining_ ? Ending::kDrained : Ending::kFailed;
  }
  return std::nullopt;
}

std::optional<std::string> Supervisor::find_hung_rank(const GroupStatus& status) const {
  const int64_t now = now_ms();
  const int64_t alive_at = status.alive_at_ms.load();
  if (alive_at != 0 && now - alive_at > kSilentMs) return "rank 0 does not turn its message loop";
  for (int rank = options_.first_rank(); rank < options_.first_rank() + options_.local_world(); ++rank) {
    if (status.loaded[rank].load() == 0) {
      if (now - started_at_ms_ > options_.load_deadline_ms) {
        return "rank " + std::to_string(rank) + " has not loaded within " + std::to_string(options_.load_deadline_ms) +
               " ms";
      }
      continue;
    }
    const int64_t since = status.busy_since_ms[rank].load();
    if (since != 0 && now - since > options_.step_deadline_ms) {
      return "rank " + std::to_string(rank) + " is in a step for more than " +
             std::to_string(options_.step_deadline_ms) + " ms";
    }
  }
  return std::nullopt;
}

void Supervisor::wait_for_event() const {
  std::vector<pollfd> polled;
  for (const int fd : ranks_.exit_fds()) polled.push_back({fd, POLLIN, 0});
  if (!draining_) polled.push_back({shutdown_fd(), POLLIN, 0});
  poll(polled.data(), polled.size(), kWatchIntervalMs);
}

bool Supervisor::back_off() {
  if (draining_ || shutdown_requested()) return false;
  const bool was_healthy = now_ms() - started_at_ms_ > kHealthyAfterMs;
  back_off_ms_ = was_healthy || back_off_ms_ == 0 ? kBackOffFirstMs : std::min(back_off_ms_ * 2, kBackOffMaxMs);
  log_info("group_restart", {{"after_ms", back_off_ms_}});
  const int64_t until = now_ms() + back_off_ms_;
  for (int64_t left = back_off_ms_; left > 0; left = until - now_ms()) {
    pollfd polled{shutdown_fd(), POLLIN, 0};
    poll(&polled, 1, static_cast<int>(std::min<int64_t>(left, kWatchIntervalMs)));
    health_.stamp();
    if (shutdown_requested()) return false;
  }
  return true;
}

}  // namespace optserve::worker

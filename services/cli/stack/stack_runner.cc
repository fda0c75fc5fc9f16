#include "cli/stack/stack_runner.h"

#include <poll.h>
#include <unistd.h>

#include <map>
#include <set>
#include <utility>

#include "base/log.h"
#include "base/shutdown.h"
#include "cli/stack/child_process.h"
#include "cli/stack/http_probe.h"
#include "cli/stack/stack_supervisor.h"

namespace optserve::cli {
namespace {

constexpr milliseconds kProbeTimeout{1000};
constexpr milliseconds kTurn{50};
constexpr seconds kBetweenProgress{10};
constexpr int kFailureTailLines = 8;

class SystemHost final : public ProcessHost {
 public:
  SystemHost(const StackFolder& folder, const Clock& clock) : folder_(folder), clock_(clock) {}

  pid_t start(const PlannedProcess& process) override {
    ChildProcess child =
        ChildProcess::start({sibling_program(process.program), process.arguments, folder_.log_path(process.name)});
    const pid_t pid = child.pid();
    children_.insert_or_assign(pid, std::move(child));
    return pid;
  }
  std::optional<std::string> poll_exit(pid_t pid) override {
    const auto found = children_.find(pid);
    if (found == children_.end()) return std::nullopt;
    const std::optional<int> status = found->second.poll_exit();
    if (!status) return std::nullopt;
    children_.erase(found);
    return describe_exit(*status);
  }
  void signal(pid_t pid, int number) override {
    if (const auto found = children_.find(pid); found != children_.end()) found->second.signal(number);
  }
  bool is_ready(const PlannedProcess& process) override {
    const std::optional<HttpAnswer> answer = http_get(process.http_port, "/readyz", kProbeTimeout, clock_);
    return answer && answer->status == 200;
  }

 private:
  const StackFolder& folder_;
  const Clock& clock_;
  std::map<pid_t, ChildProcess> children_;
};

std::string_view state_name(const StackSupervisor& supervisor) {
  switch (supervisor.state()) {
    case StackSupervisor::State::kStarting:
      return "starting";
    case StackSupervisor::State::kReady:
      return "ready";
    case StackSupervisor::State::kStopping:
      return "stopping";
    case StackSupervisor::State::kStopped:
      return supervisor.failure().empty() ? "stopped" : "failed";
  }
  return "unknown";
}

void record(const StackFolder& folder, const StackOptions& options, const StackPlan& plan,
            const StackSupervisor& supervisor) {
  StackState state;
  state.state = state_name(supervisor);
  state.model = options.name;
  state.client_endpoint = plan.client_endpoint;
  state.service_endpoint = plan.service_endpoint;
  state.api_url = plan.api_url;
  state.client_secret_key = plan.client_secret_key;
  state.server_key = plan.server_key;
  state.drain_seconds = options.drain_seconds;
  for (const StackSupervisor::Member& member : supervisor.members()) {
    state.processes.push_back({member.plan.name, member.pid, member.plan.http_port, member.restarts});
  }
  folder.write_state(state);
}

// What the process itself says about its end comes first; the lines before it only help those who look further.
std::string failure_message(const StackFolder& folder, const StackSupervisor& supervisor) {
  const std::string& process = supervisor.failed_process();
  const std::string cause = folder.first_cause(process);
  std::string message = supervisor.failure();
  if (!cause.empty()) message += ": " + cause;
  if (const std::string tail = folder.log_tail(process, kFailureTailLines); !tail.empty()) {
    message += "\n--- the end of " + folder.log_path(process) + " ---\n" + tail;
  }
  return message;
}

// Reports what has become ready, and from time to time what it is waiting for.
class ProgressTeller {
 public:
  ProgressTeller(StartReport& report, Instant now) : report_(report), begun_(now), next_(now + kBetweenProgress) {}

  void look(const StackSupervisor& supervisor, Instant now) {
    std::string waiting;
    for (const StackSupervisor::Member& member : supervisor.members()) {
      if (member.ready && told_.insert(member.plan.name).second) {
        report_.progress(member.plan.name + " is ready after " + after(now));
      }
      if (!member.ready) waiting += (waiting.empty() ? "" : ", ") + member.plan.name;
    }
    if (waiting.empty() || now < next_) return;
    next_ = now + kBetweenProgress;
    report_.progress("waiting for " + waiting + " (" + after(now) + ")");
  }

 private:
  std::string after(Instant now) const {
    const auto ms = std::chrono::duration_cast<milliseconds>(now - begun_).count();
    return std::to_string(ms / 1000) + "." + std::to_string(ms / 100 % 10) + " s";
  }

  StartReport& report_;
  Instant begun_, next_;
  std::set<std::string> told_;
};

void wait_a_turn() {
  pollfd entry{shutdown_fd(), POLLIN, 0};
  // The descriptor stays readable after a signal, so from then on this only sleeps.
  poll(&entry, shutdown_requested() ? 0 : 1, static_cast<int>(kTurn.count()));
}

}  // namespace

bool run_stack(const StackOptions& options, const StackPlan& plan, const StackFolder& folder, StartReport& report,
               const Clock& clock) {
  using State = StackSupervisor::State;
  install_service_signals();
  SystemHost host(folder, clock);
  SupervisorTimes times;
  times.ready = seconds(options.ready_seconds);
  times.drain = seconds(options.drain_seconds);
  StackSupervisor supervisor(plan.processes, host, times, clock.now());
  if (const auto self = identify_process(getpid())) folder.write_pid(*self);
  bool reported = false;
  ProgressTeller progress(report, clock.now());
  while (supervisor.state() != State::kStopped) {
    const bool abandoned = supervisor.state() == State::kStarting && report.is_abandoned();
    if (shutdown_requested() || abandoned) supervisor.begin_stop(clock.now());
    if (shutdown_forced()) supervisor.end_stop();
    supervisor.on_tick(clock.now());
    if (supervisor.take_changed()) record(folder, options, plan, supervisor);
    if (!reported) progress.look(supervisor, clock.now());
    if (!reported && supervisor.state() == State::kReady) {
      reported = true;
      report.ready(plan);
    }
    if (supervisor.state() != State::kStopped) wait_a_turn();
  }
  if (!reported && !supervisor.failure().empty()) report.failed(failure_message(folder, supervisor));
  if (!reported && supervisor.failure().empty()) report.failed("stopped before every process was ready");
  folder.remove_pid();
  log_info("stack_stopped");
  return supervisor.failure().empty();
}

}  // namespace optserve::cli

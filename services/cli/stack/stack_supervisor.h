// Keeps the processes of a local stack alive. It is a state machine: time is a parameter, and processes are behind
// ProcessHost.
//
// starting: the first process starts alone, the others when it is ready. If a process ends or is not ready in time, the
//           start has failed.
// ready:    a process that ends is started again after a back-off, which doubles from 1 s to 30 s and begins anew when
//           the process has lived for a minute.
// stopping: SIGTERM goes to the first process, which drains the work of the others, then to the others. What has not
//           ended in time gets SIGKILL, and so does everything at once after end_stop().
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "cli/stack/stack_plan.h"

namespace optserve::cli {

class ProcessHost {
 public:
  virtual ~ProcessHost() = default;
  virtual pid_t start(const PlannedProcess& process) = 0;  // throws Error
  // How the process ended, in words ("exited with status 1"). Reported once.
  virtual std::optional<std::string> poll_exit(pid_t pid) = 0;
  virtual void signal(pid_t pid, int number) = 0;
  virtual bool is_ready(const PlannedProcess& process) = 0;
};

struct SupervisorTimes {
  Duration ready = seconds(300);
  Duration drain = seconds(30);      // of the first process; the others then get as much again
  Duration exit_grace = seconds(2);  // to end after the drain
  Duration probe = milliseconds(100);
  Duration back_off_first = seconds(1);
  Duration back_off_max = seconds(30);
  Duration forgive = seconds(60);  // a life of this length resets the back-off
};

class StackSupervisor {
 public:
  enum class State { kStarting, kReady, kStopping, kStopped };

  struct Member {
    PlannedProcess plan;
    pid_t pid = -1;
    bool ready = false;
    int restarts = 0;
    Instant started_at{};
    Instant next_start{};
    Duration back_off{};
    std::string last_exit;
  };

  StackSupervisor(std::vector<PlannedProcess> processes, ProcessHost& host, const SupervisorTimes& times, Instant now);

  void on_tick(Instant now);
  void begin_stop(Instant now);
  // Stops waiting for running jobs. Only after begin_stop().
  void end_stop();

  State state() const { return state_; }
  // Why the start failed, and because of which process; empty if it did not fail.
  const std::string& failure() const { return failure_; }
  const std::string& failed_process() const { return failed_process_; }
  const std::vector<Member>& members() const { return members_; }
  // True if pids, restarts or the state have changed since the last call.
  bool take_changed();

 private:
  void start(Member& member, Instant now);
  void reap(Instant now);
  void on_exit(Member& member, const std::string& how, Instant now);
  void tick_starting(Instant now);
  void tick_ready(Instant now);
  void tick_stopping(Instant now);
  void fail(const std::string& process, const std::string& why, Instant now);
  void signal_rest(int number);
  bool first_gone() const { return members_.front().pid < 0; }
  bool all_gone() const;

  ProcessHost& host_;
  SupervisorTimes times_;
  std::vector<Member> members_;
  State state_ = State::kStarting;
  std::string failure_;
  std::string failed_process_;
  Instant ready_deadline_;
  Instant next_probe_{};
  Instant first_deadline_{};
  Instant rest_deadline_{};
  bool rest_told_ = false;
  bool is_cut_short_ = false;
  bool changed_ = true;
};

}  // namespace optserve::cli

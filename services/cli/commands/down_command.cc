#include <csignal>
#include <cstdio>
#include <thread>

#include "base/clock.h"
#include "cli/commands/command.h"
#include "cli/stack/stack_folder.h"

namespace optserve::cli {
namespace {

constexpr int kDrainRounds = 2;    // first the scheduler drains, then the others
constexpr seconds kExitGrace{10};  // to end after the drain
constexpr seconds kDefaultDrain{30};

bool wait_until_gone(const ProcessIdentity& process, Duration limit, const Clock& clock) {
  const Instant deadline = clock.now() + limit;
  while (is_alive(process)) {
    if (clock.now() >= deadline) return false;
    std::this_thread::sleep_for(milliseconds(20));
  }
  return true;
}

class DownCommand final : public Command {
 public:
  void declare(ConfigParser& parser) override {
    ConfigParser& command = parser.add_command("down", "Stop the local stack that 'optserve up' started", selected);
    command.add("dir", folder_, "Folder of the stack, as given to 'optserve up'");
    command.add("now", now_, "Kill the stack without waiting for running jobs");
    command.add_example("optserve down", "running jobs may end first");
    command.add_example("optserve down --now", "they are continued at the next start");
    command.add_example("optserve down --dir run2", "the stack of another folder");
  }

  int run(const Clock& clock) override {
    const StackFolder folder(folder_);
    const std::optional<ProcessIdentity> supervisor = folder.read_pid();
    if (!supervisor) {
      std::fprintf(stderr, "optserve: no stack is running in %s; --dir names another folder\n", folder_.c_str());
      return kExitOk;
    }
    if (!is_alive(*supervisor)) {
      folder.remove_pid();
      std::fprintf(stderr, "optserve: the stack in %s (pid %d) had died already; its pid file is removed\n",
                   folder_.c_str(), supervisor->pid);
      return kExitOk;
    }
    return stop(folder, *supervisor, clock);
  }

 private:
  int stop(const StackFolder& folder, const ProcessIdentity& supervisor, const Clock& clock) const {
    const Result<StackState> state = folder.read_state();
    const seconds drain = state.ok() ? seconds(state.value().drain_seconds) : kDefaultDrain;
    if (!now_) {
      // A second signal would end its running jobs; --now is there for those who want that.
      if (!state.ok() || state.value().state != "stopping") kill(supervisor.pid, SIGTERM);
      if (wait_until_gone(supervisor, drain * kDrainRounds + kExitGrace, clock)) {
        std::fprintf(stderr, "optserve: stopped\n");
        return kExitOk;
      }
    }
    std::vector<ProcessIdentity> processes{supervisor};  // the stack's processes die with their supervisor
    for (const StackProcess& process : state.ok() ? state.value().processes : std::vector<StackProcess>()) {
      if (const auto identity = identify_process(process.pid)) processes.push_back(*identity);
    }
    kill(supervisor.pid, SIGKILL);
    for (const ProcessIdentity& process : processes) {
      if (wait_until_gone(process, kExitGrace, clock)) continue;
      std::fprintf(stderr, "optserve: process %d does not end\n", process.pid);
      return kExitFailed;
    }
    folder.remove_pid();
    std::fprintf(stderr, "optserve: %s\n", now_ ? "killed" : "did not stop in time and was killed");
    return now_ ? kExitOk : kExitFailed;
  }

  std::string folder_ = "optserve-run";
  bool now_ = false;
};

}  // namespace

std::unique_ptr<Command> make_down_command() { return std::make_unique<DownCommand>(); }

}  // namespace optserve::cli

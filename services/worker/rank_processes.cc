#include "worker/rank_processes.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "base/error.h"

namespace optserve::worker {

std::string RankExit::describe() const {
  const std::string who = "rank " + std::to_string(rank);
  if (WIFSIGNALED(status)) return who + " was killed by signal " + std::to_string(WTERMSIG(status));
  return who + " exited with status " + std::to_string(WEXITSTATUS(status));
}

RankProcesses::~RankProcesses() { kill_all(); }

void RankProcesses::start(int rank, const std::vector<std::string>& arguments, const std::vector<int>& inherited_fds) {
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) throw errno_error("fork");
  if (pid == 0) {
    // Only async-signal-safe calls are allowed until exec, since this copy may contain locks that other threads held.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);  // the parent died before prctl took effect
    for (const int fd : inherited_fds) fcntl(fd, F_SETFD, 0);
    execv("/proc/self/exe", argv.data());
    _exit(127);
  }
  const int pid_fd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  processes_.push_back({rank, pid, pid_fd});
  if (pid_fd < 0) throw errno_error("pidfd_open");
}

void RankProcesses::forget(Process& process) {
  if (process.pid_fd >= 0) close(process.pid_fd);
  process.pid = -1;
  process.pid_fd = -1;
}

std::optional<RankExit> RankProcesses::poll_exit() {
  for (Process& process : processes_) {
    if (process.pid < 0) continue;
    int status = 0;
    if (waitpid(process.pid, &status, WNOHANG) != process.pid) continue;
    forget(process);
    return RankExit{process.rank, status};
  }
  return std::nullopt;
}

void RankProcesses::signal_rank(int rank, int signal) const {
  for (const Process& process : processes_) {
    if (process.rank == rank && process.pid > 0) kill(process.pid, signal);
  }
}

void RankProcesses::kill_all() {
  for (const Process& process : processes_) {
    if (process.pid > 0) kill(process.pid, SIGKILL);
  }
  for (Process& process : processes_) {
    if (process.pid < 0) continue;
    while (waitpid(process.pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    forget(process);
  }
  processes_.clear();
}

bool RankProcesses::all_gone() const {
  for (const Process& process : processes_) {
    if (process.pid > 0) return false;
  }
  return true;
}

std::vector<int> RankProcesses::exit_fds() const {
  std::vector<int> fds;
  for (const Process& process : processes_) {
    if (process.pid_fd >= 0) fds.push_back(process.pid_fd);
  }
  return fds;
}

}  // namespace optserve::worker

#include "base/first_process.h"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>

#include "base/error.h"

namespace optserve {
namespace {

int exit_status_of(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status); }

// Reaps all processes that have ended. Ends this process if `child` is among them.
void reap(pid_t child) {
  int status = 0;
  for (pid_t ended = waitpid(-1, &status, WNOHANG); ended > 0; ended = waitpid(-1, &status, WNOHANG)) {
    if (ended == child) _exit(exit_status_of(status));
  }
}

[[noreturn]] void serve_as_first(pid_t child, const sigset_t& all) {
  for (;;) {
    siginfo_t info{};
    const int number = sigwaitinfo(&all, &info);
    if (number < 0) continue;
    if (number == SIGCHLD) {
      reap(child);
    } else {
      kill(child, number);
    }
  }
}

}  // namespace

void leave_first_process() {
  if (getpid() != 1) return;
  sigset_t all, before;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &before);
  const pid_t child = fork();
  if (child < 0) throw errno_error("fork");
  if (child > 0) serve_as_first(child, all);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  sigprocmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace optserve

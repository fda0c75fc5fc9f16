#include "base/shutdown.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>

#include "base/error.h"

namespace optserve {
namespace {

std::atomic<int> interrupt_count{0}, termination_count{0};
std::atomic<bool> counts_as_one{false};
std::atomic<int> status_of_second{-1};  // -1: the second signal is only counted
int pipe_ends[2] = {-1, -1};

extern "C" void on_signal(int number) {
  const int saved = errno;
  (number == SIGINT ? interrupt_count : termination_count).fetch_add(1);
  if (const int status = status_of_second.load(); status >= 0 && shutdown_forced()) _exit(status);
  const char byte = 1;
  [[maybe_unused]] const ssize_t ignored = write(pipe_ends[1], &byte, 1);
  errno = saved;
}

}  // namespace

void install_shutdown_signals() {
  if (pipe_ends[0] >= 0) return;
  if (pipe2(pipe_ends, O_CLOEXEC | O_NONBLOCK) != 0) throw errno_error("pipe2");
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;  // a peer that closes its pipe causes an errno and does not kill us
  sigaction(SIGPIPE, &ignore, nullptr);
}

void install_service_signals() {
  install_shutdown_signals();
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  for (const int number : {SIGHUP, SIGUSR1, SIGUSR2}) sigaction(number, &ignore, nullptr);
}

bool shutdown_requested() { return interrupt_count.load() + termination_count.load() > 0; }
bool shutdown_forced() { return !counts_as_one.load() && interrupt_count.load() + termination_count.load() > 1; }
void count_signals_as_one() { counts_as_one.store(true); }
void end_at_second_signal(int exit_status) { status_of_second.store(exit_status); }

void forget_interrupts() {
  if (pipe_ends[0] < 0) return;
  interrupt_count.store(0);
  char bytes[64];
  while (read(pipe_ends[0], bytes, sizeof(bytes)) > 0) {
  }
  // The byte of a SIGTERM may be gone too, so the pipe is made readable again.
  if (shutdown_requested()) {
    [[maybe_unused]] const ssize_t ignored = write(pipe_ends[1], bytes, 1);
  }
}

int shutdown_fd() { return pipe_ends[0]; }

}  // namespace optserve

#include "cli/stack/child_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/error.h"

namespace optserve::cli {
namespace {

// What the child does between fork and exec: async-signal-safe calls only. Reports the errno of what failed.
[[noreturn]] void become(pid_t parent, const LaunchSpec& spec, char* const* argv, int log_fd, int report_fd) {
  const auto fail = [report_fd] {
    const int error = errno;
    [[maybe_unused]] const ssize_t ignored = write(report_fd, &error, sizeof error);
    _exit(127);
  };
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);  // the parent died before prctl took effect
  setpgid(0, 0);
  std::signal(SIGPIPE, SIG_DFL);
  const int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0) fail();
  if (log_fd >= 0 && (dup2(log_fd, STDOUT_FILENO) < 0 || dup2(log_fd, STDERR_FILENO) < 0)) fail();
  if (spec.stdout_fd >= 0 && dup2(spec.stdout_fd, STDOUT_FILENO) < 0) fail();
  execv(spec.program.c_str(), argv);
  fail();
  _exit(127);
}

// Reads the errno that become() reports; 0 once exec has closed the pipe.
int read_report(int fd) {
  int error = 0;
  ssize_t got = 0;
  do {
    got = read(fd, &error, sizeof error);
  } while (got < 0 && errno == EINTR);
  return got == sizeof error ? error : 0;
}

}  // namespace

std::string sibling_program(const std::string& name) {
  const std::filesystem::path path = std::filesystem::read_symlink("/proc/self/exe").parent_path() / name;
  if (access(path.c_str(), X_OK) != 0) {
    throw Error("expected the program " + name + " beside this one: " + errno_error(path.string()).what());
  }
  return path.string();
}

std::string describe_exit(int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    const int number = WTERMSIG(wait_status);
    return "was killed by signal " + std::to_string(number) + " (" + strsignal(number) + ")";
  }
  return "exited with status " + std::to_string(WEXITSTATUS(wait_status));
}

ChildProcess ChildProcess::start(const LaunchSpec& spec) {
  std::vector<char*> argv{const_cast<char*>(spec.program.c_str())};
  for (const std::string& argument : spec.arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  int log_fd = -1;
  if (!spec.log_path.empty()) {
    log_fd = open(spec.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0) throw errno_error("open " + spec.log_path);
  }
  std::array<int, 2> report{-1, -1};
  if (pipe2(report.data(), O_CLOEXEC) != 0) throw errno_error("pipe2");
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) become(parent, spec, argv.data(), log_fd, report[1]);
  const int fork_errno = errno;
  close(report[1]);
  if (log_fd >= 0) close(log_fd);
  const int error = pid < 0 ? fork_errno : read_report(report[0]);
  close(report[0]);
  if (pid > 0 && error != 0) waitpid(pid, nullptr, 0);
  if (error != 0) throw Error("start " + spec.program + ": " + std::strerror(error));
  return ChildProcess(pid);
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), status_(std::exchange(other.status_, std::nullopt)) {}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  if (this != &other) {
    end();
    pid_ = std::exchange(other.pid_, -1);
    status_ = std::exchange(other.status_, std::nullopt);
  }
  return *this;
}

ChildProcess::~ChildProcess() { end(); }

void ChildProcess::end() {
  if (!is_running()) return;
  signal(SIGKILL);
  wait();
}

std::optional<int> ChildProcess::poll_exit() {
  if (!is_running()) return status_;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) == pid_) status_ = status;
  return status_;
}

void ChildProcess::signal(int number) const {
  if (is_running()) kill(pid_, number);
}

int ChildProcess::wait() {
  if (status_ || pid_ <= 0) return status_.value_or(0);
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  status_ = status;
  return status;
}

}  // namespace optserve::cli

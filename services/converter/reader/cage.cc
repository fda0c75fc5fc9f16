#include "converter/reader/cage.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <initializer_list>

#include "base/error.h"
#include "base/sanitized.h"
#include "confinement/system_calls.h"

namespace optserve::converter {
namespace {

using confinement::ArgumentRule;
using confinement::SeccompFilter;
using confinement::Verdict;

// They change nothing outside of this process, whatever their arguments.
constexpr auto kAllowed = std::to_array<std::string_view>({"read",
                                                           "pread64",
                                                           "readv",
                                                           "close",
                                                           "fstat",
                                                           "newfstatat",
                                                           "statx",
                                                           "lseek",
                                                           "getdents64",
                                                           "readlink",
                                                           "readlinkat",
                                                           "access",
                                                           "faccessat",
                                                           "faccessat2",
                                                           "getcwd",
                                                           "munmap",
                                                           "mremap",
                                                           "brk",
                                                           "madvise",
                                                           "futex",
                                                           "exit",
                                                           "exit_group",
                                                           "clock_gettime",
                                                           "clock_nanosleep",
                                                           "nanosleep",
                                                           "gettimeofday",
                                                           "getpid",
                                                           "gettid",
                                                           "getrandom",
                                                           "rt_sigaction",
                                                           "rt_sigreturn",
                                                           "rt_sigprocmask",
                                                           "sigaltstack",
                                                           "sched_yield",
                                                           "rseq",
                                                           "sched_getaffinity",
                                                           "set_robust_list",
                                                           "restart_syscall"});

// Calls that no reader of files ever makes, in addition to confinement::kHostileCalls.
constexpr auto kForbidden = std::to_array<std::string_view>(
    {"execve",  "execveat",  "fork",     "vfork",   "socket",   "socketpair", "connect",  "bind", "listen",
     "kill",    "unlink",    "unlinkat", "rename",  "renameat", "renameat2",  "creat",    "link", "linkat",
     "symlink", "symlinkat", "mkdir",    "mkdirat", "rmdir",    "truncate",   "ftruncate"});

constexpr ArgumentRule masked(unsigned argument, uint64_t mask, uint64_t value) { return {argument, mask, value}; }

int load_filter(int channel_fd) { return cage_filter(channel_fd).load(); }

}  // namespace

SeccompFilter cage_filter(int channel_fd, confinement::Architecture architecture) {
  using confinement::equals;
  constexpr uint64_t kThread = CLONE_VM | CLONE_THREAD | CLONE_SIGHAND;
  SeccompFilter filter(Verdict::kRefuse, architecture);
  filter.add(Verdict::kAllow, kAllowed);
  if (!kSanitizedBuild) {
    filter.add(Verdict::kKill, kForbidden);
    filter.add(Verdict::kKill, confinement::kHostileCalls);
  }
  for (const int fd : {channel_fd, STDERR_FILENO}) filter.add(Verdict::kAllow, "write", {equals(0, fd)});
  filter.add(Verdict::kAllow, "writev", {equals(0, STDERR_FILENO)});  // for the last message of the C library
  filter.add(Verdict::kAllow, "openat", {masked(2, O_ACCMODE | O_CREAT | O_TRUNC | O_APPEND, O_RDONLY)});
  filter.add(Verdict::kAllow, "mmap", {masked(2, PROT_EXEC, 0), masked(3, MAP_TYPE, MAP_PRIVATE)});
  filter.add(Verdict::kAllow, "mprotect", {masked(2, PROT_EXEC, 0)});
  filter.add(Verdict::kAllow, "clone", {masked(0, kThread, kThread)});
  filter.add(Verdict::kUnknown, "clone3");  // its flags cannot be seen; the C library then uses clone
  filter.add(Verdict::kAllow, "tgkill", {equals(0, static_cast<uint64_t>(getpid()))});  // abort()
  for (const int command : {F_GETFL, F_GETFD, F_SETFD}) filter.add(Verdict::kAllow, "fcntl", {equals(1, command)});
  return filter;
}

std::optional<SandboxMode> parse_sandbox_mode(std::string_view text) {
  for (const SandboxMode mode : {SandboxMode::kRequire, SandboxMode::kTry, SandboxMode::kOff}) {
    if (sandbox_mode_name(mode) == text) return mode;
  }
  return std::nullopt;
}

std::string_view sandbox_mode_name(SandboxMode mode) {
  if (mode == SandboxMode::kRequire) return "require";
  return mode == SandboxMode::kTry ? "try" : "off";
}

std::string enter_cage(int channel_fd) {
  std::string missing;
  const auto note = [&](std::string_view what, int error) {
    missing += (missing.empty() ? "" : ", ") + std::string(what) + ": " + std::strerror(error);
  };
  const auto limit = [&](auto resource, rlim_t value, std::string_view name) {
    const rlimit bound{value, value};
    if (setrlimit(resource, &bound) != 0) note(name, errno);
  };
  limit(RLIMIT_CORE, 0, "RLIMIT_CORE");
  limit(RLIMIT_FSIZE, 0, "RLIMIT_FSIZE");
  if (!kSanitizedBuild) limit(RLIMIT_DATA, kCageDataBytes, "RLIMIT_DATA");
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) note("no_new_privs", errno);
  if (const int error = load_filter(channel_fd); error != 0) note("seccomp", error);
  return missing;
}

std::string try_cage() {
  int ends[2] = {-1, -1};
  if (pipe2(ends, O_CLOEXEC) != 0) throw errno_error("pipe2");
  const pid_t child = fork();
  if (child == 0) {
    const std::string missing = enter_cage(ends[1]);
    [[maybe_unused]] const ssize_t ignored = write(ends[1], missing.data(), missing.size());
    _exit(0);
  }
  close(ends[1]);
  std::string missing(1 << 10, '\0');
  const ssize_t got = child < 0 ? 0 : read(ends[0], missing.data(), missing.size());
  close(ends[0]);
  if (child < 0) throw errno_error("fork");
  missing.resize(static_cast<size_t>(std::max<ssize_t>(got, 0)));
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return status == 0 ? missing : "the process that tried it ended with status " + std::to_string(status);
}

}  // namespace optserve::converter

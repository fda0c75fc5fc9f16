#include "converter/reader/cage.h"

#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
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

namespace optserve::converter {
namespace {

// They change nothing outside of this process, whatever their arguments.
constexpr auto kAllowed = std::to_array<int>({SCMP_SYS(read),
                                              SCMP_SYS(pread64),
                                              SCMP_SYS(readv),
                                              SCMP_SYS(close),
                                              SCMP_SYS(fstat),
                                              SCMP_SYS(newfstatat),
                                              SCMP_SYS(statx),
                                              SCMP_SYS(lseek),
                                              SCMP_SYS(getdents64),
                                              SCMP_SYS(readlink),
                                              SCMP_SYS(readlinkat),
                                              SCMP_SYS(access),
                                              SCMP_SYS(faccessat),
                                              SCMP_SYS(faccessat2),
                                              SCMP_SYS(getcwd),
                                              SCMP_SYS(munmap),
                                              SCMP_SYS(mremap),
                                              SCMP_SYS(brk),
                                              SCMP_SYS(madvise),
                                              SCMP_SYS(futex),
                                              SCMP_SYS(exit),
                                              SCMP_SYS(exit_group),
                                              SCMP_SYS(clock_gettime),
                                              SCMP_SYS(clock_nanosleep),
                                              SCMP_SYS(nanosleep),
                                              SCMP_SYS(gettimeofday),
                                              SCMP_SYS(getpid),
                                              SCMP_SYS(gettid),
                                              SCMP_SYS(getrandom),
                                              SCMP_SYS(rt_sigaction),
                                              SCMP_SYS(rt_sigreturn),
                                              SCMP_SYS(rt_sigprocmask),
                                              SCMP_SYS(sigaltstack),
                                              SCMP_SYS(sched_yield),
                                              SCMP_SYS(rseq),
                                              SCMP_SYS(sched_getaffinity),
                                              SCMP_SYS(set_robust_list),
                                              SCMP_SYS(restart_syscall)});

constexpr auto kHostile = std::to_array<int>({SCMP_SYS(execve),
                                              SCMP_SYS(execveat),
                                              SCMP_SYS(fork),
                                              SCMP_SYS(vfork),
                                              SCMP_SYS(socket),
                                              SCMP_SYS(socketpair),
                                              SCMP_SYS(connect),
                                              SCMP_SYS(bind),
                                              SCMP_SYS(listen),
                                              SCMP_SYS(ptrace),
                                              SCMP_SYS(kill),
                                              SCMP_SYS(process_vm_readv),
                                              SCMP_SYS(process_vm_writev),
                                              SCMP_SYS(unlink),
                                              SCMP_SYS(unlinkat),
                                              SCMP_SYS(rename),
                                              SCMP_SYS(renameat),
                                              SCMP_SYS(renameat2),
                                              SCMP_SYS(creat),
                                              SCMP_SYS(link),
                                              SCMP_SYS(linkat),
                                              SCMP_SYS(symlink),
                                              SCMP_SYS(symlinkat),
                                              SCMP_SYS(mkdir),
                                              SCMP_SYS(mkdirat),
                                              SCMP_SYS(rmdir),
                                              SCMP_SYS(mknod),
                                              SCMP_SYS(mknodat),
                                              SCMP_SYS(truncate),
                                              SCMP_SYS(ftruncate),
                                              SCMP_SYS(mount),
                                              SCMP_SYS(bpf),
                                              SCMP_SYS(io_uring_setup),
                                              SCMP_SYS(userfaultfd),
                                              SCMP_SYS(unshare),
                                              SCMP_SYS(setns)});

class Filter {
 public:
  Filter() : context_(seccomp_init(SCMP_ACT_ERRNO(EPERM))) {}
  ~Filter() {
    if (context_ != nullptr) seccomp_release(context_);
  }
  Filter(const Filter&) = delete;
  Filter& operator=(const Filter&) = delete;

  void add(uint32_t action, int call, std::initializer_list<scmp_arg_cmp> arguments = {}) {
    if (context_ == nullptr || error_ != 0) return;
    const int status =
        seccomp_rule_add_array(context_, action, call, static_cast<unsigned>(arguments.size()), arguments.begin());
    // A call that this architecture does not have needs no rule.
    if (status != 0 && status != -EDOM) error_ = -status;
  }
  // 0, or an errno.
  int load() {
    if (context_ == nullptr) return ENOMEM;
    return error_ != 0 ? error_ : -seccomp_load(context_);
  }

 private:
  scmp_filter_ctx context_;
  int error_ = 0;
};

// The argument, under the mask, has this value.
scmp_arg_cmp masked(unsigned argument, uint64_t mask, uint64_t value) {
  return {argument, SCMP_CMP_MASKED_EQ, mask, value};
}

scmp_arg_cmp equal(unsigned argument, uint64_t value) { return {argument, SCMP_CMP_EQ, value, 0}; }

int load_filter(int channel_fd) {
  constexpr uint64_t kThread = CLONE_VM | CLONE_THREAD | CLONE_SIGHAND;
  Filter filter;
  for (const int call : kAllowed) filter.add(SCMP_ACT_ALLOW, call);
  for (const int call : kHostile) {
    if (!kSanitizedBuild) filter.add(SCMP_ACT_KILL_PROCESS, call);
  }
  for (const int fd : {channel_fd, STDERR_FILENO}) filter.add(SCMP_ACT_ALLOW, SCMP_SYS(write), {equal(0, fd)});
  filter.add(SCMP_ACT_ALLOW, SCMP_SYS(writev), {equal(0, STDERR_FILENO)});  // the C library's last words
  filter.add(SCMP_ACT_ALLOW, SCMP_SYS(openat), {masked(2, O_ACCMODE | O_CREAT | O_TRUNC | O_APPEND, O_RDONLY)});
  filter.add(SCMP_ACT_ALLOW, SCMP_SYS(mmap), {masked(2, PROT_EXEC, 0), masked(3, MAP_TYPE, MAP_PRIVATE)});
  filter.add(SCMP_ACT_ALLOW, SCMP_SYS(mprotect), {masked(2, PROT_EXEC, 0)});
  filter.add(SCMP_ACT_ALLOW, SCMP_SYS(clone), {masked(0, kThread, kThread)});
  filter.add(SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3));  // its flags cannot be seen; the C library then uses clone
  filter.add(SCMP_ACT_ALLOW, SCMP_SYS(tgkill), {equal(0, static_cast<uint64_t>(getpid()))});  // abort()
  for (const int command : {F_GETFL, F_GETFD, F_SETFD}) {
    filter.add(SCMP_ACT_ALLOW, SCMP_SYS(fcntl), {equal(1, command)});
  }
  return filter.load();
}

}  // namespace

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

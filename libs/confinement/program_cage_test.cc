// What a locked program may do, according to the filter for each architecture, and according to this machine's kernel
// for a process that is locked.
#include "confinement/program_cage.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>

#include "base/error.h"
#include "base/ids.h"
#include "base/program.h"
#include "base/sanitized.h"
#include "confinement/bpf_machine.h"
#include "confinement/system_calls.h"

namespace optserve::confinement {
namespace program_cage_test {

namespace fs = std::filesystem;

const std::pair<std::string_view, ProgramNeeds> kPrograms[] = {
    {"scheduler", kScheduler},    {"tokenizer", kTokenizer},          {"gateway", kGateway},
    {"files", kGatewayWithFiles}, {"converter", kConverter},          {"supervisor", kCpuSupervisor},
    {"rank", kCpuRank},           {"gpu supervisor", kGpuSupervisor}, {"gpu rank", kGpuRank}};

// The filter of one program on one architecture, tested call by call.
class Asked {
 public:
  Asked(const ProgramNeeds& needs, Architecture architecture)
      : architecture_(architecture), program_(filter_of(needs, architecture).program()) {}

  // Whether the architecture has the call.
  bool has(std::string_view call) const { return number(call) >= 0; }
  uint32_t verdict(std::string_view call, std::initializer_list<uint64_t> arguments = {}) const {
    seccomp_data data{};
    data.nr = number(call);
    data.arch = architecture_ == Architecture::kArm64 ? AUDIT_ARCH_AARCH64 : AUDIT_ARCH_X86_64;
    std::ranges::copy(arguments, data.args);
    return run_filter(program_, data);
  }
  bool allows(std::string_view call, std::initializer_list<uint64_t> arguments = {}) const {
    return verdict(call, arguments) == SECCOMP_RET_ALLOW;
  }

 private:
  int number(std::string_view call) const {
    return seccomp_syscall_resolve_name_arch(
        architecture_ == Architecture::kArm64 ? SCMP_ARCH_AARCH64 : SCMP_ARCH_X86_64, std::string(call).c_str());
  }

  Architecture architecture_;
  std::vector<uint64_t> program_;
};

class ProgramCage : public ::testing::TestWithParam<Architecture> {
 protected:
  void each_program(const std::function<void(std::string_view, const ProgramNeeds&, const Asked&)>& look) const {
    for (const auto& [name, needs] : kPrograms) {
      SCOPED_TRACE(name);
      look(name, needs, Asked(needs, GetParam()));
    }
  }
};

constexpr auto kOrdinary = std::to_array<std::string_view>(
    {"read", "write", "close", "epoll_pwait", "futex", "accept4", "sendmsg", "recvfrom", "munmap", "clock_gettime",
     "getrandom", "exit_group", "rt_sigreturn", "newfstatat", "fstat", "getdents64", "eventfd2", "sched_yield"});

TEST_P(ProgramCage, AllowsWhatEveryServiceNeeds) {
  each_program([](auto, const auto&, const Asked& asked) {
    for (const std::string_view call : kOrdinary) {
      EXPECT_TRUE(!asked.has(call) || asked.allows(call)) << call;
    }
    EXPECT_TRUE(asked.allows("openat", {0, 0, O_RDONLY | O_CLOEXEC}));
    EXPECT_TRUE(asked.allows("mmap", {0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS}));
    EXPECT_TRUE(asked.allows("mmap", {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE}));  // a module of the C library
    EXPECT_TRUE(asked.allows("clone", {CLONE_VM | CLONE_THREAD | CLONE_SIGHAND | CLONE_FS}));
    for (const int family : {AF_INET, AF_INET6, AF_UNIX}) {
      EXPECT_TRUE(asked.allows("socket", {static_cast<uint64_t>(family)})) << family;
    }
  });
}

TEST_P(ProgramCage, NoProgramMakesAHostileCall) {
  each_program([](auto, const ProgramNeeds& needs, const Asked& asked) {
    for (const std::string_view call : kHostileCalls) {
      if (!asked.has(call) || (kSanitizedBuild && asked.allows(call))) continue;
      const bool is_mild = needs.drives_devices || kSanitizedBuild;
      EXPECT_EQ(asked.verdict(call), is_mild ? SECCOMP_RET_ERRNO | EPERM : SECCOMP_RET_KILL_PROCESS) << call;
    }
  });
}

TEST_P(ProgramCage, OnlySupervisorsAndConvertersStartPrograms) {
  each_program([](std::string_view name, const ProgramNeeds& needs, const Asked& asked) {
    const bool may = name == "converter" || name == "supervisor" || name == "gpu supervisor";
    EXPECT_EQ(needs.starts_programs, may);
    EXPECT_EQ(asked.allows("execve"), may);
    EXPECT_EQ(asked.allows("execveat"), may);
  });
}

TEST_P(ProgramCage, WhoNeedsNoFilesWritesNone) {
  if (kSanitizedBuild) GTEST_SKIP() << "run-time libraries of sanitizers open their own files";
  each_program([](auto, const ProgramNeeds& needs, const Asked& asked) {
    const bool may = needs.writes_files || needs.drives_devices;
    for (const int flags : {O_WRONLY, O_RDWR, O_WRONLY | O_APPEND, O_RDONLY | O_TRUNC, O_WRONLY | O_CREAT}) {
      EXPECT_EQ(asked.allows("openat", {0, 0, static_cast<uint64_t>(flags)}), may) << flags;
    }
    for (const std::string_view call : {"unlinkat", "renameat2", "mkdirat", "truncate", "fchmodat", "symlinkat"}) {
      EXPECT_TRUE(!asked.has(call) || asked.allows(call) == may) << call;
    }
  });
}

TEST_P(ProgramCage, WithoutADriverNothingElseIsAllowed) {
  if (kSanitizedBuild) GTEST_SKIP() << "run-time libraries of sanitizers map their shadow";
  each_program([](auto, const ProgramNeeds& needs, const Asked& asked) {
    if (needs.drives_devices) return;
    constexpr uint64_t kAnonymous = MAP_PRIVATE | MAP_ANONYMOUS;
    EXPECT_FALSE(asked.allows("mmap", {0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, kAnonymous}));
    EXPECT_FALSE(asked.allows("mprotect", {0, 4096, PROT_READ | PROT_EXEC}));
    EXPECT_FALSE(asked.allows("socket", {AF_PACKET}));
    EXPECT_FALSE(asked.allows("ioctl", {0, TIOCSTI}));
    EXPECT_FALSE(asked.allows("setuid"));
    // The filter cannot see its flags; after ENOSYS the C library uses clone().
    EXPECT_EQ(asked.verdict("clone3"), uint32_t{SECCOMP_RET_ERRNO | ENOSYS});
    if (!needs.starts_programs) {
      EXPECT_FALSE(asked.allows("clone", {SIGCHLD}));  // a process
      EXPECT_FALSE(asked.allows("kill", {1, SIGKILL}));
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Architectures, ProgramCage, ::testing::Values(Architecture::kX86_64, Architecture::kArm64),
                         [](const auto& tested) { return tested.param == Architecture::kArm64 ? "Arm64" : "X86"; });

// The following tests use this machine's kernel, each in a process of its own.

int status_of(bool locked, const ProgramNeeds& needs, const std::function<bool()>& action) {
  const pid_t child = fork();
  if (child == 0) {
    try {
      if (locked) enter(needs, "require");
      _exit(action() ? 0 : 10);
    } catch (const std::exception&) {
      _exit(10);
    }
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return status;
}
bool is_success(int status) { return WIFEXITED(status) && WEXITSTATUS(status) == 0; }
bool is_end_by_the_filter(int status) {
  if (kSanitizedBuild) return WIFEXITED(status) && WEXITSTATUS(status) == 10;
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
}

bool starts_a_program() {
  const char* const arguments[] = {"/bin/true", nullptr};
  execv(arguments[0], const_cast<char**>(arguments));
  return false;
}

TEST(LockedProcess, StartsNoProgramUnlessItNeedsTo) {
  EXPECT_TRUE(is_success(status_of(false, kTokenizer, starts_a_program)));
  EXPECT_TRUE(is_end_by_the_filter(status_of(true, kTokenizer, starts_a_program)));
  EXPECT_TRUE(is_success(status_of(true, kCpuSupervisor, starts_a_program)));
  const int of_gpu_rank = status_of(true, kGpuRank, starts_a_program);
  EXPECT_TRUE(WIFEXITED(of_gpu_rank) && WEXITSTATUS(of_gpu_rank) == 10);
}

TEST(LockedProcess, KeepsItsThreadsSocketsAndFiles) {
  const fs::path folder = fs::temp_directory_path() / ("optserve-confinement-" + Id128::random().hex());
  fs::create_directory(folder);
  const auto works = [&] {
    if (!kSanitizedBuild && !std::async(std::launch::async, [] { return true; }).get()) return false;
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in any{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_zero = {}};
    const bool is_bound = bind(listener, reinterpret_cast<const sockaddr*>(&any), sizeof any) == 0;
    std::ofstream(folder / "file") << "content";
    return is_bound && listen(listener, 1) == 0 && fs::file_size(folder / "file") == 7 && fs::remove(folder / "file");
  };
  EXPECT_TRUE(is_success(status_of(true, kScheduler, works)));
  EXPECT_TRUE(kSanitizedBuild || !is_success(status_of(true, kTokenizer, works)));
  fs::remove_all(folder);
}

TEST(LockedProcess, GetsNoNewPrivileges) {
  const auto has_none = [] {
    std::ifstream status("/proc/self/status");
    std::string line;
    bool without_privileges = false, filtered = false;
    while (std::getline(status, line)) {
      without_privileges |= line == "NoNewPrivs:\t1";
      filtered |= line == "Seccomp:\t2";
    }
    return without_privileges && filtered;
  };
  EXPECT_TRUE(is_success(status_of(true, kScheduler, has_none)));
  EXPECT_FALSE(is_success(status_of(false, kScheduler, has_none)));
}

TEST(LockedProcess, FailsWithASystemThatCannotLockOnlyIfItIsRequired) {
  EXPECT_TRUE(is_success(status_of(false, kScheduler, [] {
    SeccompFilter no_filters(Verdict::kAllow);
    no_filters.add(Verdict::kRefuse, "seccomp");
    no_filters.add(Verdict::kRefuse, "prctl", {equals(0, PR_SET_SECCOMP)});
    if (no_filters.load() != 0) return false;
    enter(kScheduler, "try");
    enter(kScheduler, "off");
    try {
      enter(kScheduler, "require");
    } catch (const ConfigurationError& error) {
      return std::string_view(error.what()).find("seccomp") != std::string_view::npos;
    }
    return false;
  })));
}

}  // namespace program_cage_test
}  // namespace optserve::confinement

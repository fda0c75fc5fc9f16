#include "confinement/program_cage.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/log.h"
#include "base/program.h"
#include "base/sanitized.h"
#include "confinement/system_calls.h"

namespace optserve::confinement {
namespace {

constexpr ArgumentRule masked(unsigned argument, uint64_t mask, uint64_t value) { return {argument, mask, value}; }

void allow_memory_and_threads(SeccompFilter& filter) {
  constexpr uint64_t kThread = CLONE_VM | CLONE_THREAD | CLONE_SIGHAND;
  // Executable memory may only be mapped from files, which the C library needs to load modules for names of hosts and
  // users.
  filter.add(Verdict::kAllow, "mmap", {masked(2, PROT_EXEC, 0)});
  filter.add(Verdict::kAllow, "mmap", {masked(3, MAP_ANONYMOUS, 0)});
  filter.add(Verdict::kAllow, "mprotect", {masked(2, PROT_EXEC, 0)});
  filter.add(Verdict::kAllow, "clone", {masked(0, kThread, kThread)});
  filter.add(Verdict::kAllow, "tgkill", {equals(0, static_cast<uint64_t>(getpid()))});  // abort()
  filter.add(Verdict::kAllow, "kill", {equals(0, static_cast<uint64_t>(getpid()))});
  filter.add(Verdict::kAllow, "prlimit64", {equals(2, 0)});  // may read a limit but not set one
  for (const int option : {PR_SET_NAME, PR_GET_NAME, PR_SET_PDEATHSIG, PR_GET_DUMPABLE, PR_SET_DUMPABLE}) {
    filter.add(Verdict::kAllow, "prctl", {equals(0, static_cast<uint64_t>(option))});
  }
}

void allow_files(SeccompFilter& filter, bool writing) {
  // TIOCSTI, for example, is not among them: it types into the terminal from which the service was started.
  for (const unsigned long request : {TCGETS, TIOCGWINSZ, FIONBIO, FIONREAD, FIOCLEX, FIONCLEX, SIOCGIFCONF,
                                      SIOCGIFADDR, SIOCGIFFLAGS, SIOCGIFINDEX, SIOCGIFNAME, SIOCGIFNETMASK}) {
    filter.add(Verdict::kAllow, "ioctl", {masked(1, 0xffff'ffff, request)});
  }
  filter.add(Verdict::kAllow, kReadingCalls);
  if (writing) {
    filter.add(Verdict::kAllow, kWritingCalls);
    return;
  }
  constexpr uint64_t kChanging = O_ACCMODE | O_CREAT | O_TRUNC | O_APPEND;
  filter.add(Verdict::kAllow, "open", {masked(1, kChanging, O_RDONLY)});
  filter.add(Verdict::kAllow, "openat", {masked(2, kChanging, O_RDONLY)});
}

void allow_sockets(SeccompFilter& filter) {
  filter.add(Verdict::kAllow, kSocketCalls);
  // getaddrinfo() asks netlink which addresses this machine has.
  for (const int family : {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK}) {
    filter.add(Verdict::kAllow, "socket", {equals(0, static_cast<uint64_t>(family))});
  }
}

// What the run-time libraries of sanitizers do: they search for leaks like a debugger, and map their shadow memory.
constexpr auto kSanitizerCalls = std::to_array<std::string_view>(
    {"clone", "fork", "kill", "mmap", "mprotect", "open", "openat", "personality", "prctl", "prlimit64",
     "process_vm_readv", "ptrace", "setrlimit", "tgkill", "wait4"});

bool is_of_sanitizers(std::string_view call) {
  return kSanitizedBuild && std::ranges::find(kSanitizerCalls, call) != kSanitizerCalls.end();
}

SeccompFilter deny_list(const ProgramNeeds& needs, Architecture architecture) {
  SeccompFilter filter(Verdict::kAllow, architecture);
  filter.add(Verdict::kRefuse, kHostileCalls);
  if (!needs.starts_programs) {
    filter.add(Verdict::kRefuse, "execve");  // not even in a child
    filter.add(Verdict::kRefuse, "execveat");
  }
  return filter;
}

SeccompFilter allow_list(const ProgramNeeds& needs, Architecture architecture) {
  SeccompFilter filter(kSanitizedBuild ? Verdict::kAllow : Verdict::kUnknown, architecture);
  const auto forbid = [&](std::span<const std::string_view> calls) {
    for (const std::string_view call : calls) {
      if (!is_of_sanitizers(call)) filter.add(kSanitizedBuild ? Verdict::kRefuse : Verdict::kKill, call);
    }
  };
  forbid(kHostileCalls);
  filter.add(Verdict::kAllow, kComputingCalls);
  filter.add(Verdict::kAllow, kDescriptorCalls);
  allow_memory_and_threads(filter);
  allow_files(filter, needs.writes_files);
  allow_sockets(filter);
  if (needs.starts_programs) {
    filter.add(Verdict::kAllow, kProgramCalls);
    filter.add(Verdict::kAllow, kChildCalls);
  } else {
    forbid(kProgramCalls);
  }
  return filter;
}

// True if the NVIDIA driver is loaded but its device files do not exist yet. The driver's library creates them with a
// program that needs privileges, which a locked process cannot give to it.
bool lacks_device_files() { return access("/proc/driver/nvidia", F_OK) == 0 && access("/dev/nvidia-uvm", F_OK) != 0; }

// Returns what the system lacks, or nothing.
std::string lock(const ProgramNeeds& needs) {
  if (needs.drives_devices && lacks_device_files()) return "/dev/nvidia-uvm: run `nvidia-modprobe -c 0 -u` before";
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return std::string("no_new_privs: ") + std::strerror(errno);
  const int error = filter_of(needs).load();
  return error == 0 ? "" : std::string("seccomp: ") + std::strerror(error);
}

}  // namespace

SeccompFilter filter_of(const ProgramNeeds& needs, Architecture architecture) {
  return needs.drives_devices ? deny_list(needs, architecture) : allow_list(needs, architecture);
}

void add_sandbox_option(ConfigParser& parser, std::string& mode) {
  parser
      .add("sandbox", mode,
           "Lock this process (system calls that it does not need, new privileges): require, try (say what the system "
           "lacks, and go on), off")
      .choices({"require", "try", "off"});
}

void enter(const ProgramNeeds& needs, std::string_view mode) {
  if (mode == "off") {
    log_warn("sandbox_off", {{"meaning", "this process may make any system call; see --sandbox"}});
    return;
  }
  const std::string missing = lock(needs);
  if (missing.empty()) return;
  if (mode == "require") {
    throw ConfigurationError("sandbox: it is required, but this system cannot provide it (" + missing + ")");
  }
  log_warn("sandbox_incomplete", {{"missing", missing}});
}

}  // namespace optserve::confinement

// optserve-checkpoint-reader: started by the converter, never by hand. Locks itself, then reads foreign files.
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <charconv>
#include <csignal>
#include <cstdio>
#include <exception>
#include <string_view>

#include "base/sanitized.h"
#include "converter/reader/answer_questions.h"
#include "converter/reader/cage.h"
#include "converter/reader/reader_protocol.h"

#if defined(__SANITIZE_ADDRESS__)
// The search for leaks attaches to this process as a debugger does, which the cage forbids.
extern "C" const char* __asan_default_options() { return "detect_leaks=0"; }
#endif

namespace {

using namespace optserve::converter;

constexpr int kExitUsage = 64;
constexpr int kExitNoCage = 65;

// Makes this process end when the converter ends; false if that has happened already.
bool tie_to_parent(std::string_view parent) {
  pid_t pid = 0;
  std::from_chars(parent.data(), parent.data() + parent.size(), pid);
  return prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == pid;
}

}  // namespace

int main(int argc, char** argv) {
  const std::span<const char* const> arguments(argv, static_cast<size_t>(argc));
  const auto mode = argc > 3 ? parse_sandbox_mode(arguments[1]) : std::nullopt;
  const auto job = argc > 3 ? parse_read_job(arguments.subspan(3)) : std::nullopt;
  if (!mode || !job || !tie_to_parent(arguments[2])) {
    std::fputs("optserve-checkpoint-reader is started by optserve-converter only\n", stderr);
    return kExitUsage;
  }
  void* window = mmap(nullptr, kWindowBytes, PROT_READ | PROT_WRITE, MAP_SHARED, kWindowFd, 0);
  if (window == MAP_FAILED) return kExitUsage;
  const std::string missing = *mode == SandboxMode::kOff ? "" : enter_cage(kChannelFd);
  if (*mode == SandboxMode::kRequire && !missing.empty()) {
    std::fprintf(stderr, "the sandbox is required, but this system cannot provide it: %s", missing.c_str());
    return kExitNoCage;
  }
  answer_questions(*job, missing, kChannelFd, {static_cast<std::byte*>(window), kWindowBytes});
  return 0;
}

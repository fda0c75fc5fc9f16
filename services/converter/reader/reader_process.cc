#include "converter/reader/reader_process.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>

#include "base/check.h"
#include "converter/reader/model_summary.h"

namespace optserve::converter {
namespace {

constexpr int kFirstFd = 16;            // of ours, above those that the reader gets
constexpr size_t kLastWordsMax = 2000;  // of the reader's standard error
constexpr int kExitWaitMs = 2000;       // from a closed channel to the end of the process

int above_reader_fds(int fd, std::string_view what) {
  if (fd < 0) throw errno_error(what);
  const int moved = fcntl(fd, F_DUPFD_CLOEXEC, kFirstFd);
  close(fd);
  if (moved < 0) throw errno_error(what);
  return moved;
}

std::string default_program() {
  const auto path = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "optserve-checkpoint-reader";
  if (access(path.c_str(), X_OK) != 0) {
    throw Error(std::string("expected the program optserve-checkpoint-reader beside this one: ") +
                errno_error(path.string()).what());
  }
  return path.string();
}

// What sanitizers and the loader need; everything else of the environment may be a secret.
std::vector<char*> reader_environment() {
  std::vector<char*> kept;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string_view text(*variable);
    for (std::string_view name : {"ASAN_OPTIONS=", "UBSAN_OPTIONS=", "TSAN_OPTIONS=", "LD_LIBRARY_PATH="}) {
      if (text.starts_with(name)) kept.push_back(*variable);
    }
  }
  kept.push_back(nullptr);
  return kept;
}

// Signals that end a process that has hit a bug or was tampered with.
bool is_breakdown(int signal) {
  constexpr std::array<int, 7> kBreakdowns = {SIGSYS, SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE, SIGXFSZ};
  return std::find(kBreakdowns.begin(), kBreakdowns.end(), signal) != kBreakdowns.end();
}

// True once the process has ended; false if it lives after `ms`.
bool reap(pid_t pid, int ms, int& status) {
  constexpr int kStepMs = 5;
  for (int waited = 0;; waited += kStepMs) {
    const pid_t found = waitpid(pid, &status, WNOHANG);
    if (found == pid) return true;
    if (found < 0 && errno != EINTR) return true;  // somebody else reaped it
    if (waited >= ms) return false;
    poll(nullptr, 0, kStepMs);
  }
}

}  // namespace

ReaderProcess::ReaderProcess(const ReaderSettings& settings, std::vector<std::string> arguments)
    : answer_seconds_(settings.answer_seconds) {
  try {
    open_channels();
    start(settings.program.empty() ? default_program() : settings.program, std::move(arguments));
  } catch (const Error&) {
    close_all();
    throw;
  }
}

ReaderProcess::~ReaderProcess() {
  end();
  close_all();
}

void ReaderProcess::open_channels() {
  int pair[2] = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) throw errno_error("socketpair");
  channel_ = pair[0];
  channel_of_reader_ = pair[1];
  if (pipe2(pair, O_CLOEXEC | O_NONBLOCK) != 0) throw errno_error("pipe2");
  errors_ = pair[0];
  errors_of_reader_ = pair[1];
  window_fd_ = above_reader_fds(memfd_create("checkpoint-window", MFD_CLOEXEC | MFD_ALLOW_SEALING), "memfd_create");
  channel_of_reader_ = above_reader_fds(channel_of_reader_, "dup");
  errors_of_reader_ = above_reader_fds(errors_of_reader_, "dup");
  if (ftruncate(window_fd_, kWindowBytes) != 0) throw errno_error("ftruncate");
  // A reader that could shrink the window could end us by SIGBUS.
  if (fcntl(window_fd_, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) throw errno_error("seal");
  void* mapped = mmap(nullptr, kWindowBytes, PROT_READ, MAP_SHARED, window_fd_, 0);
  if (mapped == MAP_FAILED) throw errno_error("mmap");
  window_ = static_cast<const std::byte*>(mapped);
}

void ReaderProcess::start(const std::string& program, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), program);
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  std::vector<char*> environment = reader_environment();
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&files);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_adddup2(&files, errors_of_reader_, STDERR_FILENO);
  posix_spawn_file_actions_adddup2(&files, channel_of_reader_, kChannelFd);
  posix_spawn_file_actions_adddup2(&files, window_fd_, kWindowFd);
  posix_spawn_file_actions_addclosefrom_np(&files, kWindowFd + 1);
  sigset_t blocked;  // a terminal sends these to both; the reader ends when we do
  sigemptyset(&blocked);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) sigaddset(&blocked, signal);
  posix_spawnattr_setsigmask(&attributes, &blocked);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  const int error = posix_spawn(&pid_, program.c_str(), &files, &attributes, argv.data(), environment.data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  if (error == 0) {
    close(std::exchange(channel_of_reader_, -1));  // so that its end is seen
    close(std::exchange(errors_of_reader_, -1));
    return;
  }
  pid_ = -1;
  errno = error;
  throw errno_error("start " + program);
}

void ReaderProcess::close_all() {
  if (window_ != nullptr) munmap(const_cast<std::byte*>(window_), kWindowBytes);
  window_ = nullptr;
  for (int* fd : {&channel_, &channel_of_reader_, &errors_, &errors_of_reader_, &window_fd_}) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
  }
}

void ReaderProcess::end() {
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  while (waitpid(pid_, &status_, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
}

std::string ReaderProcess::last_words() const {
  std::string text(kLastWordsMax, '\0');
  const ssize_t got = read(errors_, text.data(), text.size());
  if (got <= 0) return "";
  return "; it said: " + printable_text(std::string_view(text).substr(0, static_cast<size_t>(got)), kLastWordsMax);
}

// The reader did something that no intact reader does, so the files are to blame.
Refusal ReaderProcess::ended_over_files(const std::string& what) {
  const std::string words = last_words();
  end();
  return refuse(ErrorCode::kDataCorrupt, "the checkpoint reader " + what + "; nothing was written" + words);
}

Refusal ReaderProcess::dead() {
  if (pid_ >= 0 && reap(pid_, kExitWaitMs, status_)) pid_ = -1;
  end();
  const std::string words = last_words();
  if (WIFSIGNALED(status_) && is_breakdown(WTERMSIG(status_))) {
    const int signal = WTERMSIG(status_);
    return ended_over_files(
        signal == SIGSYS ? "made a forbidden system call, and its sandbox ended it: either the files are an attack, or "
                           "the sandbox is too strict for this system"
                         : "crashed while it read the files (signal " + std::to_string(signal) + ")" + words);
  }
  throw Error("the checkpoint reader " +
              (WIFSIGNALED(status_) ? "was killed by signal " + std::to_string(WTERMSIG(status_))
                                    : "ended with status " + std::to_string(WEXITSTATUS(status_))) +
              words);
}

// If the reader is gone, collect() notices.
void ReaderProcess::post(const Request& request) {
  [[maybe_unused]] const ssize_t ignored = send(channel_, &request, sizeof request, MSG_NOSIGNAL);
}

Result<Reply> ReaderProcess::collect() {
  if (pid_ < 0) throw Error("the checkpoint reader has ended");
  pollfd waiting{channel_, POLLIN, 0};
  const int64_t ms = std::min<int64_t>(answer_seconds_, INT32_MAX / 1000) * 1000;
  int ready = 0;
  do {
    ready = poll(&waiting, 1, static_cast<int>(ms));
  } while (ready < 0 && errno == EINTR);
  if (ready < 0) throw errno_error("poll");
  if (ready == 0) {
    end();
    throw Error("the checkpoint reader gave no answer for " + std::to_string(answer_seconds_) + " s and was ended" +
                last_words());
  }
  Reply reply;
  const ssize_t got = recv(channel_, &reply, sizeof reply, MSG_TRUNC);
  if (got <= 0) return dead();
  if (got != sizeof reply) {
    return ended_over_files("gave an invalid answer: a message of " + std::to_string(got) + " bytes");
  }
  return checked(reply);
}

Result<Reply> ReaderProcess::checked(const Reply& reply) {
  if (reply.bytes > kWindowBytes) return ended_over_files("gave an invalid answer: more bytes than the window holds");
  if (reply.answer == Answer::kDone) return reply;
  if (reply.answer != Answer::kRefusal && reply.answer != Answer::kError) {
    return ended_over_files("gave an invalid answer: an unknown kind of answer");
  }
  if (reply.bytes > kReplyTextMax) return ended_over_files("gave an invalid answer: a text that is too long");
  std::string text(reply.bytes, '\0');
  std::memcpy(text.data(), window_, text.size());
  text = printable_text(text, text.size());
  if (reply.answer == Answer::kError) throw Error(text);
  const bool is_known = reply.code >= static_cast<uint32_t>(ErrorCode::kBadRequest) &&
                        reply.code <= static_cast<uint32_t>(ErrorCode::kStorageFull);
  if (!is_known) return ended_over_files("gave an invalid answer: an unknown class of refusal");
  return refuse(static_cast<ErrorCode>(reply.code), text);
}

}  // namespace optserve::converter

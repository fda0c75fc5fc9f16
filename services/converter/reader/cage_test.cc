// What is forbidden in the cage fails there and succeeds outside of it, each in a process of its own.
#include "converter/reader/cage.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <thread>

#include "base/ids.h"
#include "base/sanitized.h"
#include "converter/reader/testing/no_seccomp.h"

namespace optserve::converter {
namespace cage_test {

namespace fs = std::filesystem;

constexpr int kDone = 0, kFailed = 10, kNoCage = 11;
constexpr int kChannel = 100;

class Cage : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("optserve-cage-test-" + Id128::random().hex());
    fs::create_directory(root_);
    std::ofstream(root_ / "file") << "content";
    ASSERT_EQ(pipe2(pipe_, O_CLOEXEC), 0);
    ASSERT_EQ(dup2(pipe_[1], kChannel), kChannel);
  }
  void TearDown() override {
    for (const int fd : {pipe_[0], pipe_[1], kChannel}) close(fd);
    fs::remove_all(root_);
  }

  // Status of a child that does `action`, which says whether it succeeded.
  static int status_of(bool caged, const std::function<bool()>& action) {
    const pid_t child = fork();
    if (child == 0) {
      if (caged && !enter_cage(kChannel).empty()) _exit(kNoCage);
      _exit(action() ? kDone : kFailed);
    }
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return status;
  }
  static bool succeeds(bool caged, const std::function<bool()>& action) {
    const int status = status_of(caged, action);
    EXPECT_FALSE(WIFEXITED(status) && WEXITSTATUS(status) == kNoCage) << "no cage on this system";
    return WIFEXITED(status) && WEXITSTATUS(status) == kDone;
  }
  // The heart of these tests: the action succeeds outside the cage and fails inside it. `how` is what the cage does to
  // the process.
  enum class How { kEperm, kKilled };
  void expect_forbidden(const std::string& what, How how, const std::function<bool()>& action) const {
    EXPECT_TRUE(succeeds(false, action)) << what << " fails without the cage, so the test proves nothing";
    const int status = status_of(true, action);
    const bool as_expected = how == How::kKilled && !kSanitizedBuild
                                 ? WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS
                                 : WIFEXITED(status) && WEXITSTATUS(status) == kFailed;
    EXPECT_TRUE(as_expected) << what << " ended with " << status;
  }

  std::string path(const std::string& name) const { return (root_ / name).string(); }

  fs::path root_;
  int pipe_[2] = {-1, -1};
};

TEST_F(Cage, ReadsFilesAndFolders) {
  EXPECT_TRUE(succeeds(true, [&] {
    std::ifstream file(root_ / "file");
    std::string text;
    return static_cast<bool>(file >> text) && text == "content";
  }));
  EXPECT_TRUE(succeeds(true, [&] { return std::distance(fs::directory_iterator(root_), {}) == 1; }));
  EXPECT_TRUE(succeeds(true, [&] { return fs::canonical(root_ / "." / "file") == fs::canonical(root_) / "file"; }));
}

TEST_F(Cage, AnswersAndStartsThreads) {
  EXPECT_TRUE(succeeds(true, [&] { return write(kChannel, "x", 1) == 1; }));
  if (!kSanitizedBuild) {  // ThreadSanitizer has no threads after a fork
    EXPECT_TRUE(succeeds(true, [] { return std::async(std::launch::async, [] { return true; }).get(); }));
  }
}

TEST_F(Cage, OpensNothingForWriting) {
  for (const int flags : {O_WRONLY, O_RDWR, O_WRONLY | O_APPEND, O_RDONLY | O_TRUNC, O_WRONLY | O_CREAT}) {
    expect_forbidden("open with " + std::to_string(flags), How::kEperm,
                     [&] { return open(path("file").c_str(), flags | O_CLOEXEC, 0600) >= 0; });
  }
  expect_forbidden("O_TMPFILE", How::kEperm, [&] { return open(path("").c_str(), O_TMPFILE | O_RDWR, 0600) >= 0; });
  expect_forbidden("open by the old call", How::kEperm,
                   [&] { return syscall(SYS_open, path("file").c_str(), O_WRONLY) >= 0; });
  expect_forbidden("creat", How::kKilled, [&] { return syscall(SYS_creat, path("new").c_str(), 0600) >= 0; });
}

TEST_F(Cage, WritesToNothingButItsChannel) {
  const int file = open(path("file").c_str(), O_RDWR | O_CLOEXEC);  // a descriptor that was open before
  ASSERT_GE(file, 0);
  expect_forbidden("write", How::kEperm, [&] { return write(file, "x", 1) == 1; });
  expect_forbidden("pwrite", How::kEperm, [&] { return pwrite(file, "x", 1, 0) == 1; });
  expect_forbidden("ftruncate", How::kKilled, [&] { return ftruncate(file, 0) == 0; });
  std::ofstream(root_ / "file") << "content";
  expect_forbidden("a shared mapping", How::kEperm,
                   [&] { return mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) != MAP_FAILED; });
  close(file);
}

TEST_F(Cage, StartsNoProgramAndNoProcess) {
  expect_forbidden("exec", How::kKilled, [] {
    const char* arguments[] = {"/bin/true", nullptr};
    execv(arguments[0], const_cast<char**>(arguments));
    return false;
  });
  expect_forbidden("fork", How::kEperm, [] {
    const pid_t child = fork();
    if (child == 0) _exit(0);
    return child > 0;
  });
  expect_forbidden("vfork", How::kKilled, [] {
    const auto child = static_cast<pid_t>(syscall(SYS_fork));
    if (child == 0) _exit(0);
    return child > 0;
  });
  expect_forbidden("a process of its own by clone3", How::kEperm, [] {
    struct {
      uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
    } how{};
    how.exit_signal = SIGCHLD;
    const auto child = static_cast<pid_t>(syscall(SYS_clone3, &how, sizeof how));
    if (child == 0) _exit(0);
    return child > 0;
  });
  expect_forbidden("code made at run time", How::kEperm, [] {
    return mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED;
  });
  expect_forbidden("code made of data", How::kEperm, [] {
    void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return page != MAP_FAILED && mprotect(page, 4096, PROT_READ | PROT_EXEC) == 0;
  });
}

TEST_F(Cage, SpeaksToNobody) {
  expect_forbidden("socket", How::kKilled, [] { return socket(AF_INET, SOCK_STREAM, 0) >= 0; });
  expect_forbidden("a local socket", How::kKilled, [] { return socket(AF_UNIX, SOCK_STREAM, 0) >= 0; });
  expect_forbidden("kill", How::kKilled, [] { return kill(getppid(), 0) == 0; });
  expect_forbidden("tgkill", How::kEperm, [] { return syscall(SYS_tgkill, getppid(), getppid(), 0) == 0; });
}

TEST_F(Cage, ChangesNoFolder) {
  expect_forbidden("mkdir", How::kKilled, [&] { return mkdir(path("new").c_str(), 0700) == 0; });
  rmdir(path("new").c_str());
  expect_forbidden("rename", How::kKilled, [&] { return rename(path("file").c_str(), path("other").c_str()) == 0; });
  std::ofstream(root_ / "file") << "content";
  expect_forbidden("unlink", How::kKilled, [&] { return unlink(path("file").c_str()) == 0; });
  std::ofstream(root_ / "file") << "content";
  expect_forbidden("chmod", How::kEperm, [&] { return chmod(path("file").c_str(), 0644) == 0; });
  expect_forbidden("symlink", How::kKilled, [&] { return symlink("x", path("link").c_str()) == 0; });
}

TEST_F(Cage, BoundsMemory) {
  if (!kSanitizedBuild) {
    expect_forbidden("memory", How::kEperm, [] {
      return mmap(nullptr, kCageDataBytes + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
             MAP_FAILED;
    });
  }
  expect_forbidden("other limits", How::kEperm, [] {
    const rlimit core{0, 0};
    return setrlimit(RLIMIT_CORE, &core) == 0;
  });
}

// A kernel or a container without seccomp: this is reported, and the rest of the lock is in force.
TEST_F(Cage, SaysWhatTheSystemLacks) {
  EXPECT_TRUE(succeeds(false, [&] {
    if (!testing::forbid_seccomp()) return false;
    const std::string missing = enter_cage(kChannel);
    std::signal(SIGXFSZ, SIG_IGN);
    const int file = open(path("new").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    const bool is_limited = file >= 0 && write(file, "x", 1) < 0 && errno == EFBIG;
    return missing.find("seccomp") != std::string::npos && is_limited;
  }));
}

TEST_F(Cage, CanBeTried) {
  EXPECT_EQ(try_cage(), "");
  EXPECT_TRUE(
      succeeds(false, [] { return testing::forbid_seccomp() && try_cage().find("seccomp") != std::string::npos; }));
}

TEST(SandboxMode, NamesRoundTrip) {
  for (const SandboxMode mode : {SandboxMode::kRequire, SandboxMode::kTry, SandboxMode::kOff}) {
    EXPECT_EQ(parse_sandbox_mode(sandbox_mode_name(mode)), mode);
  }
  EXPECT_FALSE(parse_sandbox_mode("on"));
}

}  // namespace cage_test
}  // namespace optserve::converter

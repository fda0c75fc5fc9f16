#include "cli/stack/child_process.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <sstream>
#include <thread>

#include "base/error.h"
#include "cli/stack/free_ports.h"
#include "cli/stack/http_probe.h"
#include "cli/stack/process_identity.h"

namespace optserve::cli {
namespace child_process_test {

std::string log_file(const char* name) { return ::testing::TempDir() + "/" + name + "." + std::to_string(getpid()); }
std::string read_file(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

TEST(ChildProcess, AppendsItsOutputToTheLogAndReportsItsStatus) {
  const std::string log = log_file("output");
  for (int round = 0; round < 2; ++round) {
    ChildProcess child = ChildProcess::start({"/bin/sh", {"-c", "echo out; echo err >&2; exit 7"}, log});
    EXPECT_EQ(describe_exit(child.wait()), "exited with status 7");
    EXPECT_FALSE(child.is_running());
  }
  EXPECT_EQ(read_file(log), "out\nerr\nout\nerr\n");
  unlink(log.c_str());
}

TEST(ChildProcess, AProgramThatCannotBeExecutedIsNamed) {
  try {
    ChildProcess::start({"/nowhere/program", {}, {}});
    FAIL() << "expected an Error";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "start /nowhere/program: No such file or directory");
  }
}

TEST(ChildProcess, IsKilledWhenTheObjectEnds) {
  std::optional<ProcessIdentity> identity;
  {
    const ChildProcess child = ChildProcess::start({"/bin/sleep", {"1000"}, {}});
    identity = identify_process(child.pid());
    ASSERT_TRUE(identity);
    EXPECT_TRUE(is_alive(*identity));
  }
  EXPECT_FALSE(is_alive(*identity));
}

TEST(ChildProcess, SignalsAreReported) {
  ChildProcess child = ChildProcess::start({"/bin/sleep", {"1000"}, {}});
  EXPECT_FALSE(child.poll_exit());
  child.signal(SIGKILL);
  EXPECT_EQ(describe_exit(child.wait()), "was killed by signal 9 (Killed)");
  EXPECT_TRUE(child.poll_exit());
  child.signal(SIGKILL);  // does not reach anyone who got the pid meanwhile
}

// When a parent is killed, its children die too.
TEST(ChildProcess, DiesWithTheThreadThatStartedIt) {
  pid_t pid = 0;
  std::optional<ProcessIdentity> identity;
  std::optional<ChildProcess> child;
  std::thread parent([&] {
    child = ChildProcess::start({"/bin/sleep", {"1000"}, {}});
    pid = child->pid();
    identity = identify_process(pid);
  });
  parent.join();
  EXPECT_EQ(describe_exit(child->wait()), "was killed by signal 9 (Killed)");
  EXPECT_FALSE(is_alive(*identity));
}

TEST(ProcessIdentity, TellsAPidThatIsUsedAgain) {
  const auto self = identify_process(getpid());
  ASSERT_TRUE(self);
  EXPECT_TRUE(is_alive(*self));
  EXPECT_EQ(ProcessIdentity::parse(self->text()), self);
  ProcessIdentity earlier = *self;
  --earlier.start_ticks;
  EXPECT_FALSE(is_alive(earlier));
  ProcessIdentity other_boot = *self;
  other_boot.boot_id = "00000000-0000-0000-0000-000000000000";
  EXPECT_FALSE(is_alive(other_boot));
  for (const char* bad : {"", "x", "12", "12 13", "-1 5 boot", "0 5 boot"}) {
    EXPECT_FALSE(ProcessIdentity::parse(bad)) << bad;
  }
}

TEST(FreePorts, AreDifferentAndFree) {
  const std::vector<int> ports = find_free_ports(8);
  ASSERT_EQ(ports.size(), 8u);
  for (size_t i = 0; i < ports.size(); ++i) {
    EXPECT_TRUE(is_port_free(ports[i]));
    for (size_t j = 0; j < i; ++j) EXPECT_NE(ports[i], ports[j]);
  }
}

TEST(FreePorts, ABlockIsFreeAsAWhole) {
  const int first = find_free_port_block(20);
  for (int port = first; port < first + 20; ++port) EXPECT_TRUE(is_port_free(port)) << port;
}

TEST(HttpProbe, NobodyThereIsNoAnswer) {
  const auto before = std::chrono::steady_clock::now();
  EXPECT_FALSE(http_get(find_free_ports(1).front(), "/readyz", milliseconds(1000), SystemClock()));
  EXPECT_LT(std::chrono::steady_clock::now() - before, milliseconds(900));
}

}  // namespace child_process_test
}  // namespace optserve::cli

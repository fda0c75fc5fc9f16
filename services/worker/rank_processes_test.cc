#include "worker/rank_processes.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "worker/group_status.h"

namespace optserve::worker {
namespace rank_processes_test {

TEST(RankExit, SaysHowARankEnded) {
  EXPECT_EQ((RankExit{1, SIGKILL}).describe(), "rank 1 was killed by signal 9");
  EXPECT_EQ((RankExit{0, 3 << 8}).describe(), "rank 0 exited with status 3");
}

TEST(GroupStatus, IsSharedThroughItsDescriptor) {
  const GroupStatusMemory ours = GroupStatusMemory::create();
  const GroupStatusMemory theirs = GroupStatusMemory::attach(dup(ours.fd()));
  EXPECT_EQ(theirs->busy_since_ms[1].load(), 0);
  const SystemClock clock;
  StepMark mark(*theirs, 1, clock);
  mark.started();
  mark.started();
  EXPECT_GT(ours->busy_since_ms[1].load(), 0);
  mark.finished();
  EXPECT_GT(ours->busy_since_ms[1].load(), 0);
  mark.finished();
  EXPECT_EQ(ours->busy_since_ms[1].load(), 0);
}

// This test program is its own rank: with the flag it sleeps until it is killed.
TEST(RankProcesses, KillsAndReapsTheWholeGroup) {
  RankProcesses ranks;
  ranks.start(0, {"rank_processes_test", "--gtest_filter=Helper.DISABLED_Sleeps", "--gtest_also_run_disabled_tests"},
              {});
  ranks.start(1, {"rank_processes_test", "--gtest_filter=Nothing.AtAll"}, {});
  pollfd polled{ranks.exit_fds()[1], POLLIN, 0};
  ASSERT_EQ(poll(&polled, 1, 20'000), 1);
  const auto ended = ranks.poll_exit();
  ASSERT_TRUE(ended);
  EXPECT_EQ(ended->rank, 1);
  EXPECT_FALSE(ranks.poll_exit());
  EXPECT_FALSE(ranks.all_gone());
  ranks.kill_all();
  EXPECT_TRUE(ranks.all_gone());
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);  // no zombie is left
}

TEST(Helper, DISABLED_Sleeps) { sleep(60); }

}  // namespace rank_processes_test
}  // namespace optserve::worker

// A first SIGTERM or SIGINT lets running jobs end, a second one does not wait for them; and Ctrl-C, which a terminal
// sends to all processes of a program, is one signal.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <csignal>
#include <fstream>

#include "cli/stack/stack_folder.h"
#include "demo_stack.h"
#include "job_watch.h"
#include "support/demo_model.h"
#include "support/processes.h"

namespace optserve::test_support {
namespace second_signal_test {

using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr size_t kJobs = 8;
constexpr seconds kLimit{120};

protocol::JobSpec long_job(int tokens) {
  protocol::JobSpec job = greedy_job(demo_goldens().cases.front());
  job.sampling.ignore_eos = true;
  job.max_new_tokens = tokens;
  job.max_attempts = 10;
  return job;
}

// Submits jobs, and waits until each of them streams.
void start_jobs(Client& client, JobWatch& watch, size_t count, int tokens) {
  for (size_t i = 0; i < count; ++i) {
    const auto outcome = client.submit({long_job(tokens)}, watch.stream(i));
    ASSERT_TRUE(outcome.ok()) << outcome.refusal().message;
  }
  ASSERT_TRUE(wait_for([&] { return watch.pieces() > 2 * count; }, kLimit));
}

pid_t parent_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  std::string word;
  while (file >> word) {
    if (pid_t parent = 0; word == "PPid:" && file >> parent) return parent;
  }
  return -1;
}

class SecondSignal : public ::testing::Test {
 protected:
  SecondSignal()
      : stack_({.worker_arguments = {"--drain-ms=600000"}, .scheduler_arguments = {"--drain-seconds", "600"}}) {
    stack_.wait_ready();
  }
  bool is_logged(const std::string& text) {
    return wait_for([&] { return stack_.logs().find(text) != std::string::npos; }, kLimit);
  }

  JobWatch watch_{kJobs};
  DemoStack stack_;
};

TEST_F(SecondSignal, EndsADrainingScheduler) {
  const auto client = stack_.client();
  start_jobs(*client, watch_, kJobs, 900);
  stack_.signal_scheduler(0, SIGTERM);
  ASSERT_TRUE(is_logged("drain_started")) << stack_.logs();
  stack_.signal_scheduler(0, SIGTERM);
  EXPECT_EQ(stack_.wait_scheduler(0), 0);
  EXPECT_TRUE(is_logged("drain_skipped")) << stack_.logs();
  EXPECT_LT(watch_.finished(), kJobs);
}

TEST_F(SecondSignal, EndsADrainingWorker) {
  const auto client = stack_.client();
  start_jobs(*client, watch_, kJobs, 900);
  ASSERT_EQ(stack_.rank_pids(0).size(), 1u);
  const pid_t supervisor = parent_of(stack_.rank_pids(0)[0]);
  kill(supervisor, SIGTERM);
  ASSERT_TRUE(is_logged("draining")) << stack_.logs();
  kill(supervisor, SIGINT);  // of either kind
  EXPECT_TRUE(is_logged("drain_cut_short")) << stack_.logs();
}

// As if somebody pressed Ctrl-C where a worker runs: the supervisor is told to drain, and so is rank 0, twice.
TEST_F(SecondSignal, IsNotSeenInWhatReachesAllProcessesOfAWorkerAtOnce) {
  JobWatch watch(1);
  const auto client = stack_.client();
  start_jobs(*client, watch, 1, 300);
  ASSERT_EQ(stack_.rank_pids(0).size(), 1u);
  ASSERT_EQ(kill(-parent_of(stack_.rank_pids(0)[0]), SIGINT), 0);
  EXPECT_TRUE(wait_for([&] { return watch.finished() == 1; }, kLimit)) << stack_.logs();
  EXPECT_EQ(stack_.logs().find("drain_skipped"), std::string::npos) << stack_.logs();
}

// A stack in the foreground, with a job that runs.
class SecondSignalToAStack : public ::testing::Test {
 protected:
  // Runs jobs of this many tokens, and stops the stack.
  void stop_with_jobs(const char* tokens) {
    ASSERT_TRUE(wait_for([&] { return is_state("ready"); }, kLimit)) << log();
    for (size_t i = 0; i < kJobs; ++i) {
      const ProgramOutput ran =
          run_program("optserve", {"submit", "Once", "--max-new-tokens", tokens, "--ignore-eos", "--dir", run_});
      ASSERT_EQ(ran.status, 0) << ran.err;
    }
    up_.signal(SIGINT);
    ASSERT_TRUE(wait_for([&] { return is_state("stopping"); }, kLimit)) << log();
  }
  bool is_state(const std::string& wanted) const {
    const auto state = cli::StackFolder(run_).read_state();
    return state.ok() && state.value().state == wanted;
  }
  std::string log() const {
    std::ifstream file(log_);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  const TemporaryFolder folder_;
  const std::string run_ = folder_ / "run", log_ = folder_ / "up.log";
  cli::ChildProcess up_ = cli::ChildProcess::start({cli::sibling_program("optserve"),
                                                    {"up",
                                                     "--model",
                                                     demo_checkpoint(),
                                                     "--dir",
                                                     run_,
                                                     "--ports",
                                                     "auto",
                                                     "--foreground",
                                                     "--drain-seconds",
                                                     "600",
                                                     "--dtype",
                                                     "fp32",
                                                     "--log-format",
                                                     "json",
                                                     "--backup-folder",
                                                     folder_.path(),
                                                     "--scheduler-option",
                                                     "open-jobs-max=100",
                                                     "--gateway-option",
                                                     "connections-max=100"},
                                                    log_});
};

TEST_F(SecondSignalToAStack, EndsItWithoutItsRunningJobs) {
  stop_with_jobs("900");
  up_.signal(SIGINT);
  ASSERT_TRUE(wait_for([&] { return up_.poll_exit().has_value(); }, kLimit)) << log();
  EXPECT_EQ(WEXITSTATUS(*up_.poll_exit()), 0);
  EXPECT_THAT(log(), HasSubstr(R"("event":"drain_skipped")"));
}

TEST_F(SecondSignalToAStack, IsNotSentByOptserveDown) {
  stop_with_jobs("100");
  const ProgramOutput down = run_program("optserve", {"down", "--dir", run_});
  EXPECT_EQ(down.status, 0) << down.err;
  EXPECT_THAT(log(), ::testing::Not(HasSubstr("drain_skipped")));
}

}  // namespace second_signal_test
}  // namespace optserve::test_support

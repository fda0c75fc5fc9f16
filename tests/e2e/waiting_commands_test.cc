// Commands that wait for a job: what they do when its scheduler goes away, and how a job is found again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <csignal>
#include <fstream>
#include <sstream>

#include "demo_stack.h"
#include "support/demo_model.h"
#include "support/processes.h"
#include "support/temporary_folder.h"

namespace optserve::test_support {
namespace waiting_commands_test {

using ::testing::AllOf;
using ::testing::HasSubstr;

class WaitingCommands : public ::testing::Test {
 protected:
  WaitingCommands() { stack_.wait_ready(); }

  ProgramOutput optserve(std::vector<std::string> arguments) const {
    arguments.insert(arguments.end(), {"--scheduler", stack_.client_endpoint()});
    return run_program("optserve", arguments);
  }
  // Starts `optserve generate` with a job that takes long, and waits until its text arrives.
  cli::ChildProcess generate_long(std::vector<std::string> more) const {
    std::vector<std::string> arguments{"generate",     "Once upon a time", "--max-new-tokens",       "900",
                                       "--ignore-eos", "--scheduler",      stack_.client_endpoint(), "--key",
                                       "long"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    auto command = cli::ChildProcess::start({cli::sibling_program("optserve"), arguments, log_path()});
    EXPECT_TRUE(wait_for([&] { return log().size() > 10; }, seconds(60))) << log();
    return command;
  }
  static int exit_status(cli::ChildProcess& command, Duration limit) {
    if (!wait_for([&] { return command.poll_exit().has_value(); }, limit)) return -1;
    return WEXITSTATUS(*command.poll_exit());
  }
  std::string log_path() const { return folder_ / "generate.log"; }
  std::string log() const {
    std::ifstream file(log_path());
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
  }

  DemoStack stack_{StackOptions{}};
  TemporaryFolder folder_;
};

TEST_F(WaitingCommands, GenerateGivesUpWhenItsSchedulerDoesNotComeBack) {
  cli::ChildProcess command = generate_long({"--patience-seconds", "6"});
  stack_.kill_scheduler(0);
  EXPECT_EQ(exit_status(command, seconds(40)), 3) << log();
  EXPECT_THAT(log(), AllOf(HasSubstr("no answer from the scheduler; waiting up to 6 s for it"),
                           HasSubstr("has not answered for 6 s; job "), HasSubstr("'optserve result ")));
}

TEST_F(WaitingCommands, GenerateGoesOnWhenItsSchedulerComesBack) {
  cli::ChildProcess command = generate_long({"--patience-seconds", "60"});
  stack_.kill_scheduler(0);
  EXPECT_TRUE(wait_for([&] { return log().find("waiting up to 60 s") != std::string::npos; }, seconds(40))) << log();
  stack_.start_scheduler(0);
  EXPECT_EQ(exit_status(command, seconds(120)), 0) << log();
  EXPECT_THAT(log(), HasSubstr("the scheduler answers again"));
}

TEST_F(WaitingCommands, CtrlCDoesNotWaitForASchedulerThatIsGone) {
  cli::ChildProcess command = generate_long({});
  stack_.kill_scheduler(0);
  command.signal(SIGINT);
  EXPECT_EQ(exit_status(command, seconds(8)), 130) << log();
  EXPECT_THAT(log(), HasSubstr("could not be cancelled and may run on"));
}

TEST_F(WaitingCommands, CtrlCCancelsTheJob) {
  cli::ChildProcess command = generate_long({});
  command.signal(SIGINT);
  EXPECT_EQ(exit_status(command, seconds(20)), 130) << log();
  EXPECT_THAT(log(), HasSubstr("optserve: cancelled job "));
  EXPECT_THAT(optserve({"status"}).out, AllOf(HasSubstr("0 failed"), HasSubstr("1 cancelled")));
}

TEST_F(WaitingCommands, AJobIsFoundByItsFirstDigitsAndByItsKey) {
  const ProgramOutput submitted = optserve({"submit", "Once upon a time", "--key", "story", "--max-new-tokens", "8"});
  ASSERT_EQ(submitted.status, 0) << submitted.err;
  const std::string job = submitted.out.substr(0, 32);
  const ProgramOutput followed = optserve({"result", job.substr(0, 8), "--follow"});
  EXPECT_EQ(followed.status, 0) << followed.err;
  EXPECT_NE(followed.out, "");
  EXPECT_EQ(optserve({"result", "--key", "story"}).out, followed.out);
  EXPECT_THAT(optserve({"jobs", "show", job.substr(0, 6)}).out, HasSubstr(job));
  const ProgramOutput unknown = optserve({"result", "--key", "other"});
  EXPECT_EQ(unknown.status, 1);
  EXPECT_THAT(unknown.err, HasSubstr("not_found: no job has the key 'other'"));
  ASSERT_EQ(optserve({"submit", "Once upon a time", "--key", "later"}).status, 0);
  const std::string newest = optserve({"jobs", "list", "--newest", "--limit", "1"}).out;
  EXPECT_THAT(newest, AllOf(HasSubstr("later"), ::testing::Not(HasSubstr("story"))));
}

// Until the worker has registered after a restart of the scheduler, the command waits instead of failing.
TEST_F(WaitingCommands, TheModelIsWaitedFor) {
  stack_.replace_scheduler();
  const ProgramOutput ran = optserve({"generate", "Once upon a time", "--max-new-tokens", "4"});
  EXPECT_EQ(ran.status, 0) << ran.err;
}

}  // namespace waiting_commands_test
}  // namespace optserve::test_support

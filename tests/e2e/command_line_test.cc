// What `optserve` says to wrong, odd and unanswerable command lines, and with which exit status.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "cli/stack/free_ports.h"
#include "cli/stack/process_identity.h"
#include "cli/stack/stack_folder.h"
#include "support/processes.h"
#include "support/temporary_folder.h"

namespace optserve::test_support {
namespace {

using ::testing::HasSubstr;

ProgramOutput optserve(const std::vector<std::string>& arguments, const std::string& input = {}) {
  return run_program("optserve", arguments, input);
}

// Nobody listens here.
std::vector<std::string> with_dead_scheduler(std::vector<std::string> arguments) {
  const std::string port = std::to_string(cli::find_free_ports(1).front());
  arguments.insert(arguments.end(), {"--scheduler", "tcp://127.0.0.1:" + port, "--timeout-ms", "300"});
  return arguments;
}

TEST(CommandLine, HelpAndVersionSucceedOnStandardOutput) {
  for (const char* flag : {"--help", "--version"}) {
    const ProgramOutput ran = optserve({flag});
    EXPECT_EQ(ran.status, 0) << flag;
    EXPECT_THAT(ran.out, HasSubstr("optserve")) << flag;
  }
  const std::string help = optserve({"--help"}).out;
  for (const char* command : {"generate", "submit", "result", "cancel", "status", "jobs", "queue", "journal", "up",
                              "down", "convert", "export", "inspect", "calibrate"})
    EXPECT_THAT(help, HasSubstr(command));
}

TEST(CommandLine, WrongUsageIsStatusTwoAndNamesWhatIsWrong) {
  EXPECT_EQ(optserve({}).status, 2);
  EXPECT_EQ(optserve({"frobnicate"}).status, 2);
  EXPECT_EQ(optserve({"status", "--frobnicate"}).status, 2);
  EXPECT_EQ(optserve({"generate", "--top-k", "many", "text"}).status, 2);
  EXPECT_EQ(optserve({"result"}).status, 2);
  for (const auto& arguments :
       std::vector<std::vector<std::string>>{{"jobs"},
                                             {"jobs", "show", "12"},
                                             {"jobs", "list", "--state", "frobnicated"},
                                             {"jobs", "list", "--limit", "0"},
                                             {"jobs", "purge"},
                                             {"queue", "hold"},
                                             {"queue", "pause", "--model", "a", "--service", "b"},
                                             {"journal"}})
    EXPECT_EQ(optserve(arguments).status, 2) << arguments.back();
  const ProgramOutput twice = optserve({"generate", "text", "--prompt", "text"});
  EXPECT_EQ(twice.status, 2);
  EXPECT_THAT(twice.err, HasSubstr("more than once"));
  const ProgramOutput id = optserve({"cancel", "12"});
  EXPECT_EQ(id.status, 2);
  EXPECT_THAT(id.err, HasSubstr("expected 32 lower-case hex digits, found '12'"));
}

TEST(CommandLine, NoSchedulerIsStatusThree) {
  for (const auto& arguments : std::vector<std::vector<std::string>>{{"status"},
                                                                     {"generate", "text"},
                                                                     {"submit", "text"},
                                                                     {"result", std::string(32, 'a')},
                                                                     {"cancel", std::string(32, 'a')},
                                                                     {"jobs", "list"},
                                                                     {"jobs", "requeue", std::string(32, 'a')},
                                                                     {"queue", "pause"},
                                                                     {"journal", "backup"},
                                                                     {"convert", "--remote", "a", "b"}}) {
    const ProgramOutput ran = optserve(with_dead_scheduler(arguments));
    EXPECT_EQ(ran.status, 3) << arguments[0] << ": " << ran.err;
    EXPECT_THAT(ran.err, HasSubstr("no scheduler answers at tcp://127.0.0.1:")) << arguments[0];
    EXPECT_EQ(ran.out, "");
  }
}

TEST(CommandLine, FilesThatCannotBeReadAreNamed) {
  const ProgramOutput prompt = optserve({"generate", "--prompt-file", "/nowhere/prompt"});
  EXPECT_EQ(prompt.status, 1);
  EXPECT_THAT(prompt.err, HasSubstr("/nowhere/prompt"));
  const ProgramOutput stack = optserve({"status", "--dir", "/nowhere"});
  EXPECT_EQ(stack.status, 1);
  EXPECT_THAT(stack.err, HasSubstr("no stack was started in this folder"));
  const ProgramOutput inspected = optserve({"inspect", "/nowhere/checkpoint"});  // runs optserve-converter
  EXPECT_EQ(inspected.status, 1);
  EXPECT_THAT(inspected.err, HasSubstr("/nowhere/checkpoint"));
  const ProgramOutput converted = optserve({"convert", "/nowhere/checkpoint", "/nowhere/out"});
  EXPECT_EQ(converted.status, 1);
  const ProgramOutput exported = optserve({"export", "/nowhere/checkpoint", "/nowhere/out", "--format", "metaseq"});
  EXPECT_EQ(exported.status, 1);
  EXPECT_THAT(exported.err, HasSubstr("/nowhere/checkpoint"));
}

TEST(CommandLine, UpRefusesBeforeItStartsAnything) {
  const TemporaryFolder folder;
  const ProgramOutput ran = optserve({"up", "--model", folder.path(), "--dir", folder / "run"});
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.err, HasSubstr("has no manifest.json"));
  EXPECT_FALSE(std::filesystem::exists(folder / "run"));
}

TEST(CommandLine, DownOfNothingIsDone) {
  const TemporaryFolder folder;
  const ProgramOutput ran = optserve({"down", "--dir", folder.path()});
  EXPECT_EQ(ran.status, 0);
  EXPECT_THAT(ran.err, HasSubstr("no stack is running"));
}

// A pid file that outlived its process must not end whoever has the pid now: here, this test.
TEST(CommandLine, DownDoesNotTouchAProcessThatGotTheSamePid) {
  const TemporaryFolder folder;
  cli::ProcessIdentity other = *cli::identify_process(getpid());
  ++other.start_ticks;
  cli::StackFolder(folder.path()).write_pid(other);
  const ProgramOutput ran = optserve({"down", "--dir", folder.path()});
  EXPECT_EQ(ran.status, 0);
  EXPECT_THAT(ran.err, HasSubstr("had died already"));
  EXPECT_FALSE(cli::StackFolder(folder.path()).read_pid());
}

}  // namespace
}  // namespace optserve::test_support

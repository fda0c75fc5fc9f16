// What operators do to a running system, with the command line and real processes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "demo_stack.h"
#include "journal/journal.h"
#include "support/demo_model.h"
#include "support/processes.h"
#include "support/temporary_folder.h"

namespace optserve::test_support {
namespace operator_commands_test {

using nlohmann::json;
using ::testing::HasSubstr;

// One stack for all tests of the program.
class OperatorCommands : public DemoStackTest {
 protected:
  static ProgramOutput optserve(std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--scheduler", stack_->client_endpoint()});
    return run_program("optserve", arguments);
  }
  static json optserve_json(std::vector<std::string> arguments) {
    arguments.push_back("--json");
    const ProgramOutput ran = optserve(std::move(arguments));
    EXPECT_EQ(ran.status, 0) << ran.err;
    return json::parse(ran.out, nullptr, false);
  }
  static std::string submit(std::vector<std::string> options) {
    options.insert(options.begin(), {"submit", demo_goldens().cases.front().prompt, "--max-new-tokens", "8"});
    const ProgramOutput ran = optserve(std::move(options));
    EXPECT_EQ(ran.status, 0) << ran.err;
    return ran.out.substr(0, ran.out.find('\n'));
  }
  static std::string state_of(const std::string& job) { return optserve_json({"jobs", "show", job})["state"]; }
};

TEST_F(OperatorCommands, APausedQueueHoldsJobsUntilItIsResumed) {
  ASSERT_EQ(optserve({"queue", "pause"}).status, 0);
  EXPECT_EQ(optserve_json({"status"})["schedulers"][0]["mode"], "paused");
  const std::string job = submit({"--group", "held"});
  const ProgramOutput waited = optserve({"result", job, "--wait", "--wait-seconds", "1"});
  EXPECT_EQ(waited.status, 1);
  EXPECT_EQ(state_of(job), "queued");
  EXPECT_EQ(optserve_json({"jobs", "group", "held"})["open"], 1);
  ASSERT_EQ(optserve({"queue", "resume"}).status, 0);
  EXPECT_EQ(optserve({"result", job, "--wait", "--wait-seconds", "60"}).status, 0);
  EXPECT_EQ(optserve_json({"jobs", "group", "held"})["succeeded"], 1);
}

TEST_F(OperatorCommands, ADrainingModelAcceptsNothing) {
  const std::string model = optserve_json({"status"})["schedulers"][0]["models"][0]["name"];
  ASSERT_EQ(optserve({"queue", "drain", "--model", model}).status, 0);
  const ProgramOutput refused = optserve({"submit", "text", "--model", model, "--timeout-ms", "500"});
  EXPECT_EQ(refused.status, 1) << refused.out;
  ASSERT_EQ(optserve({"queue", "resume", "--model", model}).status, 0);
  submit({"--model", model});
}

TEST_F(OperatorCommands, ADelayedJobIsListedAndItsGroupCancelled) {
  const std::string job = submit({"--delay-ms", "600000", "--group", "later", "--tenant", "t"});
  const json listed = optserve_json({"jobs", "list", "--group", "later", "--tenant", "t"});
  ASSERT_EQ(listed["jobs"].size(), 1u);
  EXPECT_EQ(listed["jobs"][0]["job"], job);
  EXPECT_EQ(listed["jobs"][0]["state"], "queued");
  EXPECT_EQ(optserve_json({"jobs", "group", "later", "--tenant", "t", "--cancel"})["cancelled"], 1);
  EXPECT_EQ(state_of(job), "cancelled");
}

TEST_F(OperatorCommands, PurgedJobsAreForgotten) {
  const std::string job = submit({"--group", "purged"});
  EXPECT_EQ(optserve({"result", job, "--wait"}).status, 0);
  EXPECT_EQ(optserve_json({"jobs", "purge", "--group", "purged"})["purged"], 1);
  const ProgramOutput gone = optserve({"result", job});
  EXPECT_EQ(gone.status, 1);
  EXPECT_THAT(gone.err, HasSubstr("not_found"));
}

TEST_F(OperatorCommands, AJobThatSucceededIsNotRequeued) {
  const std::string job = submit({});
  EXPECT_EQ(optserve({"result", job, "--wait"}).status, 0);
  const ProgramOutput refused = optserve({"jobs", "requeue", job});
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.err, HasSubstr("not_found"));
  EXPECT_EQ(optserve_json({"jobs", "dead"})["jobs"].size(), 0u);
}

TEST(JournalCommands, AJournalIsBackedUpCheckedAndRestored) {
  const TemporaryFolder backups;
  DemoStack stack({.scheduler_arguments = {"--backup-folder=" + backups.path(), "--backup-seconds=0"}});
  stack.wait_ready();
  const std::string journal = stack.journal();
  const auto run = [&](std::vector<std::string> arguments, int status) {
    const ProgramOutput ran = run_program("optserve", arguments);
    EXPECT_EQ(ran.status, status) << ran.out << ran.err;
    return ran.out + ran.err;
  };
  const auto check = [&](const std::string& file, int status) {
    return json::parse(run({"journal", "check", file, "--json"}, status), nullptr, false);
  };
  run({"generate", "Once", "--max-new-tokens", "4", "--scheduler", stack.client_endpoint()}, 0);
  EXPECT_THAT(run({"journal", "backup", "--scheduler", stack.client_endpoint()}, 0), HasSubstr(".db"));
  run({"generate", "Twice", "--max-new-tokens", "4", "--scheduler", stack.client_endpoint()}, 0);
  EXPECT_THAT(run({"journal", "check", journal}, 1), HasSubstr("is held by another process"));
  stack.kill_scheduler(0);

  EXPECT_EQ(check(journal, 0)["ended"], 2);
  EXPECT_THAT(run({"journal", "restore", backups.path(), journal}, 1), HasSubstr("replace"));
  EXPECT_EQ(check(journal, 0)["ended"], 2);
  run({"journal", "restore", backups.path(), journal, "--replace"}, 0);
  EXPECT_EQ(check(journal, 0)["ended"], 1);
  EXPECT_EQ(check(journal + ".replaced", 0)["ended"], 2);
  stack.start_scheduler(0);
  stack.wait_ready();
  run({"generate", "Thrice", "--model", "demo", "--max-new-tokens", "4", "--scheduler", stack.client_endpoint()}, 0);
  stack.kill_scheduler(0);

  const std::string copy = backups / "damaged";
  std::filesystem::copy_file(journal::latest_backup(backups.path()), copy);
  std::fstream file(copy, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(4'096);
  file << std::string(20'000, 'x');
  file.close();
  EXPECT_THAT(run({"journal", "check", copy}, 1), HasSubstr("damaged"));
  EXPECT_THAT(run({"journal", "restore", copy, journal, "--replace"}, 1), HasSubstr("damaged"));
  EXPECT_EQ(check(journal, 0)["ended"], 2);
  EXPECT_THAT(run({"journal", "check", backups.path() + "/none"}, 1), HasSubstr("none"));
}

}  // namespace operator_commands_test
}  // namespace optserve::test_support

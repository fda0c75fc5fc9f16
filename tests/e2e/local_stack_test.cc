// `optserve up` to `optserve down` with the demo model: every command against real processes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/stack/http_probe.h"
#include "cli/stack/process_identity.h"
#include "cli/stack/stack_folder.h"
#include "demo_stack.h"
#include "support/demo_model.h"
#include "support/processes.h"
#include "support/temporary_folder.h"

namespace optserve::test_support {
namespace local_stack_test {

using nlohmann::json;
using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string demo_folder() { return std::filesystem::path(demo_file("golden.json")).parent_path().string(); }

// One stack for all tests of the program.
class LocalStack : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TemporaryFolder>();
    const ProgramOutput up = run_program(
        "optserve", {"up", "--model", demo_checkpoint(), "--name", "demo", "--world", "2", "--dir", run_folder(),
                     "--ports", "auto", "--converter-root", folder_->path(), "--worker-option", "threads=1"});
    ASSERT_EQ(up.status, 0) << up.err;
    EXPECT_THAT(up.err, HasSubstr("ready: demo at tcp://127.0.0.1:"));
  }
  static void TearDownTestSuite() {
    const auto supervisor = cli::StackFolder(run_folder()).read_pid();
    const ProgramOutput down = run_program("optserve", {"down", "--dir", run_folder()});
    EXPECT_EQ(down.status, 0) << down.err;
    EXPECT_THAT(down.err, HasSubstr("stopped"));
    EXPECT_FALSE(supervisor && cli::is_alive(*supervisor));
    EXPECT_FALSE(std::filesystem::exists(run_folder() + "/supervisor.pid"));
    folder_.reset();
  }

  static std::string run_folder() { return *folder_ / "run"; }
  // A command against the stack.
  static ProgramOutput optserve(std::vector<std::string> arguments, const std::string& input = {}) {
    arguments.insert(arguments.end(), {"--dir", run_folder()});
    return run_program("optserve", arguments, input);
  }
  static cli::StackProcess process(const std::string& name) {
    const cli::StackState state = cli::StackFolder(run_folder()).read_state().value();
    for (const cli::StackProcess& one : state.processes) {
      if (one.name == name) return one;
    }
    return {};
  }
  static const DemoCase& golden() { return demo_goldens().cases.front(); }

  static std::unique_ptr<TemporaryFolder> folder_;
};
std::unique_ptr<TemporaryFolder> LocalStack::folder_;

TEST_F(LocalStack, GeneratePrintsTheTextAndNothingElseOnStandardOutput) {
  const ProgramOutput ran =
      optserve({"generate", golden().prompt, "--temperature", "0", "--max-new-tokens", "64", "--stats"});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(ran.out, golden().greedy_text);
  EXPECT_THAT(ran.err, HasSubstr("succeeded"));
  const ProgramOutput piped =
      optserve({"generate", "--temperature", "0", "--max-new-tokens", "64", "--json"}, golden().prompt + "\n");
  EXPECT_EQ(piped.status, 0) << piped.err;
  EXPECT_EQ(json::parse(piped.out)["ids"].get<std::vector<TokenId>>(), golden().greedy_ids);
}

TEST_F(LocalStack, TheGatewayIsUpToo) {
  const cli::StackState state = cli::StackFolder(run_folder()).read_state().value();
  const std::string prefix = "http://127.0.0.1:";
  ASSERT_THAT(state.api_url, ::testing::StartsWith(prefix));
  const SystemClock clock;
  const auto models = cli::http_get(std::stoi(state.api_url.substr(prefix.size())), "/v1/models", seconds(5), clock);
  ASSERT_TRUE(models);
  EXPECT_EQ(json::parse(models->body)["data"][0]["id"], "demo");
}

TEST_F(LocalStack, TheLikeliestOfSeveralChoicesAreReturned) {
  const std::vector<std::string> common{"generate", golden().prompt, "--max-new-tokens", "12", "--json", "--seed", "7"};
  const auto choices = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = common;
    arguments.insert(arguments.end(), more.begin(), more.end());
    const ProgramOutput ran = optserve(arguments);
    EXPECT_EQ(ran.status, 0) << ran.err;
    return json::parse(ran.out).at("choices");
  };
  const json all = choices({"--n", "5", "--logprobs", "0"}), best = choices({"--n", "2", "--best-of", "5"});
  ASSERT_EQ(all.size(), 5u);
  ASSERT_EQ(best.size(), 2u);
  const auto by_logprob = [](const json& choice) { return choice.at("cumulative_logprob").get<double>(); };
  std::vector<json> ranked(all.begin(), all.end());
  std::ranges::stable_sort(ranked, std::greater{}, by_logprob);
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(best[i].at("ids"), ranked[i].at("ids"));
  EXPECT_NE(all[0].at("ids"), all[1].at("ids"));
  EXPECT_EQ(all[0].at("group"), all[4].at("group"));
  const json alone = json::parse(optserve(common).out);  // the first choice is the job itself
  EXPECT_EQ(alone.at("ids"), all[0].at("ids"));
  EXPECT_EQ(optserve({"generate", "text", "--temperature", "0", "--n", "2"}).status, 1);
}

TEST_F(LocalStack, SubmitResultAndStatusWorkTogether) {
  const std::vector<std::string> submit{"submit", golden().prompt, "--temperature", "0", "--max-new-tokens",
                                        "64",     "--key",         "the-key"};
  const ProgramOutput submitted = optserve(submit);
  ASSERT_EQ(submitted.status, 0) << submitted.err;
  const std::string job = submitted.out.substr(0, submitted.out.find('\n'));
  EXPECT_EQ(job.size(), 32u);
  EXPECT_EQ(optserve(submit).out, submitted.out);  // the same key is the same job
  const ProgramOutput result = optserve({"result", job, "--wait"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(result.out, golden().greedy_text);
  const ProgramOutput status = optserve({"status", "--json"});
  EXPECT_EQ(status.status, 0) << status.err;
  const json root = json::parse(status.out).at("schedulers").at(0);
  EXPECT_TRUE(root["durable"].get<bool>());
  EXPECT_EQ(root["services"].size(), 3u) << status.out;
  EXPECT_THAT(optserve({"status"}).out, HasSubstr("KIND"));
}

TEST_F(LocalStack, CancelEndsARunningJob) {
  const ProgramOutput submitted =
      optserve({"submit", golden().prompt, "--max-new-tokens", "900", "--ignore-eos", "--json"});
  ASSERT_EQ(submitted.status, 0) << submitted.err;
  const std::string job = json::parse(submitted.out)["job"];
  const ProgramOutput cancelled = optserve({"cancel", job});
  EXPECT_EQ(cancelled.status, 0) << cancelled.err;
  EXPECT_EQ(optserve({"result", job}).status, 1);
  EXPECT_EQ(optserve({"cancel", std::string(32, '0')}).status, 1);
}

TEST_F(LocalStack, RefusalsNameWhatIsWrong) {
  const auto refused = [](std::vector<std::string> arguments, const std::string& input, const std::string& message) {
    arguments.insert(arguments.begin(), "generate");
    const ProgramOutput ran = optserve(arguments, input);
    EXPECT_EQ(ran.status, 1) << message;
    EXPECT_THAT(ran.err, HasSubstr(message));
    EXPECT_EQ(ran.out, "");
  };
  refused({"text", "--model", "other"}, "", "unknown_model");
  refused({"text", "--temperature", "9"}, "", "temperature");
  refused({"text", "--temperature", "nan"}, "", "temperature");
  refused({"text", "--max-new-tokens", "0"}, "", "max_new_tokens");
  refused({}, "", "prompt");
  refused({}, "caf\xc3", "expected valid UTF-8, found other bytes at byte 3 of 4");
  refused({}, std::string(70'000, 'x'), "prompt_too_long");
}

TEST_F(LocalStack, AConverterConvertsBelowItsRootAndNowhereElse) {
  const std::string source = *folder_ / "foreign";
  std::filesystem::create_directory(source);
  for (const auto& entry : std::filesystem::directory_iterator(demo_folder())) {
    std::filesystem::copy(entry.path(), source);
  }
  const ProgramOutput ran = optserve({"convert", "--remote", source, *folder_ / "converted", "--shards", "2"});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("2 shards"));
  const ProgramOutput inspected = run_program("optserve", {"inspect", *folder_ / "converted", "--json"});
  EXPECT_EQ(inspected.status, 0) << inspected.err;
  EXPECT_EQ(json::parse(inspected.out)["kind"], "optserve");
  const ProgramOutput quantised =
      optserve({"convert", "--remote", "--verify", source, *folder_ / "quantised", "--quantize", "int4"});
  EXPECT_EQ(quantised.status, 0) << quantised.err;
  EXPECT_THAT(quantised.out, AllOf(HasSubstr("int4 and F16, 2 shards"), HasSubstr(", verified")));
  EXPECT_THAT(run_program("optserve", {"inspect", *folder_ / "quantised"}).out, HasSubstr("quantisation    int4"));
  const ProgramOutput outside = optserve({"convert", "--remote", demo_folder(), *folder_ / "more"});
  EXPECT_EQ(outside.status, 1);
  EXPECT_THAT(outside.err, HasSubstr("leads outside the folders"));
}

// All of them die together, so that the supervisor's back-off passes once.
TEST_F(LocalStack, WhatDiesIsStartedAgain) {
  std::vector<cli::StackProcess> killed;
  for (const char* name : {"tokenizer", "worker-0", "scheduler"}) {
    killed.push_back(process(name));
    ASSERT_GT(killed.back().pid, 0) << name;
  }
  for (const cli::StackProcess& before : killed) kill(before.pid, SIGKILL);
  for (const cli::StackProcess& before : killed) {
    EXPECT_TRUE(wait_for([&] { return process(before.name).restarts > before.restarts; }, seconds(30))) << before.name;
    EXPECT_TRUE(wait_for(
        [&] {
          const auto answer = cli::http_get(before.http_port, "/readyz", milliseconds(1000), SystemClock());
          return answer && answer->status == 200;
        },
        seconds(60)))
        << before.name;
  }
  // Until the services have registered again the scheduler answers that it is busy.
  ProgramOutput ran;
  EXPECT_TRUE(wait_for(
      [&] {
        ran = optserve({"generate", golden().prompt, "--temperature", "0", "--max-new-tokens", "64", "--model", "demo",
                        "--timeout-ms", "60000"});
        return ran.err.find("busy") == std::string::npos;
      },
      seconds(30)));
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(ran.out, golden().greedy_text);
}

TEST_F(LocalStack, ASecondStackInTheSameFolderIsRefused) {
  const ProgramOutput ran =
      run_program("optserve", {"up", "--model", demo_checkpoint(), "--dir", run_folder(), "--ports", "auto"});
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.err, HasSubstr("a stack is running in"));
}

TEST(LocalStackStart, AWorkerThatCannotStartFailsTheStartAndShowsItsLog) {
  const TemporaryFolder folder;
  const ProgramOutput ran = run_program("optserve", {"up", "--model", demo_checkpoint(), "--dir", folder / "run",
                                                     "--ports", "auto", "--worker-option", "max-step-tokens=1"});
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.err, HasSubstr("worker-0 exited with status"));
  EXPECT_THAT(ran.err, HasSubstr("max-step-tokens is 1, expected 64"));
  const auto state = cli::StackFolder(folder / "run").read_state();
  ASSERT_TRUE(state.ok());
  EXPECT_EQ(state.value().state, "failed");
  for (const cli::StackProcess& process : state.value().processes) EXPECT_EQ(process.pid, -1) << process.name;
}

// The processes die with the supervisor, and the folder can be used again.
TEST(LocalStackStart, AKilledSupervisorLeavesNothingBehind) {
  const TemporaryFolder folder;
  const std::vector<std::string> up{"up",      "--model", demo_checkpoint(), "--dir",    folder / "run",
                                    "--ports", "auto",    "--worker-option", "threads=1"};
  ASSERT_EQ(run_program("optserve", up).status, 0);
  const cli::StackFolder stack(folder / "run");
  std::vector<cli::ProcessIdentity> processes;
  const cli::StackState state = stack.read_state().value();
  for (const cli::StackProcess& process : state.processes) processes.push_back(*cli::identify_process(process.pid));
  kill(stack.read_pid()->pid, SIGKILL);
  for (const auto& process : processes) EXPECT_TRUE(wait_for([&] { return !cli::is_alive(process); }, seconds(10)));
  const ProgramOutput again = run_program("optserve", up);
  EXPECT_EQ(again.status, 0) << again.err;
  EXPECT_THAT(again.err, HasSubstr("has died; starting a new one"));
  EXPECT_EQ(run_program("optserve", {"down", "--now", "--dir", folder / "run"}).status, 0);
}

}  // namespace local_stack_test
}  // namespace optserve::test_support

#include "cli/stack/stack_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "checkpoint/manifest/manifest.h"
#include "model_spec/opt_config.h"

namespace optserve::cli {
namespace stack_plan_test {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

// A folder with the manifest of a model of four shards.
class StackPlanTest : public ::testing::Test {
 protected:
  StackPlanTest() : folder_(fs::path(::testing::TempDir()) / ("stack_plan_" + std::to_string(getpid()))) {
    fs::create_directories(folder_);
    manifest_.config = *model_spec::find_published("opt-125m");
    manifest_.shards = 4;
    manifest_.vocab_file = checkpoint::kVocabName;
    manifest_.merges_file = checkpoint::kMergesName;
    for (int shard = 0; shard < 4; ++shard) {
      manifest_.files.push_back({checkpoint::shard_file_name(shard, 4), 1, std::string(64, '0')});
    }
    for (const auto name : {checkpoint::kVocabName, checkpoint::kMergesName}) {
      manifest_.files.push_back({std::string(name), 1, std::string(64, '0')});
    }
    write_manifest();
    options_.model = folder_.string();
  }
  ~StackPlanTest() override { fs::remove_all(folder_); }

  void write_manifest() const { std::ofstream(folder_ / "manifest.json") << checkpoint::manifest_text(manifest_); }
  std::string refusal() {
    const Status status = check_options(options_);
    return status.ok() ? "" : status.refusal().message;
  }
  static std::string value_of(const PlannedProcess& process, const std::string& flag) {
    const auto found = std::find(process.arguments.begin(), process.arguments.end(), flag);
    return found == process.arguments.end() ? "(absent)" : *(found + 1);
  }

  fs::path folder_;
  checkpoint::Manifest manifest_;
  StackOptions options_;
};

TEST_F(StackPlanTest, TheModelsNameComesFromItsManifest) {
  EXPECT_EQ(refusal(), "");
  EXPECT_EQ(options_.name, "opt-125m");
  options_.name = "mine";
  EXPECT_EQ(refusal(), "");
  EXPECT_EQ(options_.name, "mine");
}

TEST_F(StackPlanTest, GroupSizesThatTheShardsDoNotAllowAreRefusedBeforeAnythingStarts) {
  for (const int world : {1, 2, 4}) {
    options_.world = world;
    EXPECT_EQ(refusal(), "") << world;
  }
  options_.world = 3;
  EXPECT_THAT(refusal(),
              HasSubstr("has 4 shards, which cannot be shared by 3 ranks; convert it again with --shards 3"));
  options_.world = 5;
  EXPECT_THAT(refusal(), HasSubstr("shared by 5 ranks; the model can be shared by 1, 2, 3"));
  checkpoint::Manifest two = manifest_;
  two.shards = 2;
  EXPECT_THAT(check_shards("folder", checkpoint::shard_plan(two), 4).refusal().message,
              HasSubstr("folder has 2 shards, which cannot be shared by 4 ranks; convert it again with --shards 4"));
}

TEST_F(StackPlanTest, TheParserRefusesNumbersOutOfRangeAndUnknownWords) {
  const auto usage_error = [](const char* option, const char* value) {
    StackOptions options;
    ConfigParser parser("up", "");
    add_options(parser, options);
    const char* argv[] = {"up", option, value};
    ::testing::internal::CaptureStderr();
    parser.parse(3, argv);
    return ::testing::internal::GetCapturedStderr();
  };
  const auto expect = [&](const char* option, const char* value, const char* expected) {
    EXPECT_THAT(usage_error(option, value), ::testing::AllOf(HasSubstr(option), HasSubstr(expected)));
  };
  for (const char* option : {"--world", "--workers", "--tokenizers"}) {
    expect(option, "0", "expected 1 to 64");
    expect(option, "65", "expected 1 to 64");
    EXPECT_EQ(usage_error(option, "64"), "");
  }
  expect("--ready-seconds", "0", "expected 1 to 86400");
  expect("--drain-seconds", "-1", "expected 0 to 3600");
  expect("--device", "tpu", "expected cpu or cuda");
  expect("--ports", "any", "expected fixed or auto");
}

TEST_F(StackPlanTest, TheModelsNameMayStandBeforeItsFolder) {
  options_.model = "mine=" + folder_.string();
  EXPECT_EQ(refusal(), "");
  EXPECT_EQ(options_.name, "mine");
  EXPECT_EQ(options_.model, folder_.string());
  options_.model = "other=" + folder_.string();
  EXPECT_THAT(refusal(), HasSubstr("has the name 'other', but name is 'mine'"));
}

TEST_F(StackPlanTest, NamesTheOptionThatIsWrong) {
  const auto with = [this](auto change) {
    const StackOptions kept = options_;
    change(options_);
    const std::string message = refusal();
    options_ = kept;
    return message;
  };
  EXPECT_THAT(with([](auto& o) { o.model = "/nowhere"; }), HasSubstr("no manifest.json"));
  EXPECT_THAT(with([](auto& o) { o.model = ""; }), HasSubstr("model: expected the folder"));
  EXPECT_THAT(with([](auto& o) { o.converter_root = "/nowhere"; }), HasSubstr("converter-root"));
  EXPECT_THAT(with([](auto& o) { o.worker_options = {"--threads"}; }), HasSubstr("worker-option"));
  manifest_.vocab_file.clear();
  manifest_.merges_file.clear();
  manifest_.files.resize(4);
  write_manifest();
  EXPECT_EQ(refusal(), "") << "it serves token ids";
  for (const PlannedProcess& planned : plan_stack(options_, {}).processes) {
    EXPECT_NE(planned.program, "optserve-tokenizer");
  }
}

TEST_F(StackPlanTest, PlansEveryProcessWithItsOwnPort) {
  options_.workers = 2;
  options_.world = 2;
  options_.converter_root = folder_.string();
  options_.worker_options = {"max-sequences=8"};
  ASSERT_EQ(refusal(), "");
  const StackPlan plan = plan_stack(options_, {});
  EXPECT_EQ(plan.ports,
            (std::vector<int>{5555, 5556, 9400, 9401, 9402, 9403, 9404, 9405, 9406, 9407, 9408, 9409, 8000}));
  ASSERT_EQ(plan.processes.size(), 6u);
  EXPECT_EQ(plan.processes[0].name, "scheduler");
  EXPECT_EQ(value_of(plan.processes[0], "--bind-clients"), "tcp://127.0.0.1:5555");
  EXPECT_EQ(value_of(plan.processes[0], "--journal"), options_.folder + "/journal.db");
  EXPECT_EQ(plan.processes[1].name, "tokenizer");
  EXPECT_EQ(value_of(plan.processes[1], "--model"), "opt-125m=" + options_.model);
  EXPECT_EQ(plan.processes[3].name, "worker-1");
  EXPECT_EQ(value_of(plan.processes[3], "--scheduler"), "tcp://127.0.0.1:5556");
  EXPECT_EQ(value_of(plan.processes[3], "--world"), "2");
  EXPECT_THAT(plan.processes[3].arguments, ::testing::Contains("--max-sequences=8"));
  EXPECT_EQ(value_of(plan.processes[3], "--name"), plan.processes[3].name);
  EXPECT_EQ(plan.processes[4].arguments.front(), "serve");
  EXPECT_EQ(value_of(plan.processes[4], "--root"), options_.converter_root);
  EXPECT_EQ(plan.api_url, "http://127.0.0.1:8000");
  EXPECT_EQ(value_of(plan.processes[5], "--http"), "127.0.0.1:8000");
  EXPECT_EQ(value_of(plan.processes[5], "--scheduler"), "tcp://127.0.0.1:5555");
  EXPECT_EQ(value_of(plan.processes[5], "--model"), "opt-125m=" + options_.model);
  const std::vector<int> expected{9400, 9401, 9402, 9405, 9408, 9409};  // two ranks behind each worker
  for (size_t i = 0; i < plan.processes.size(); ++i) {
    EXPECT_EQ(plan.processes[i].http_port, expected[i]);
    EXPECT_EQ(value_of(plan.processes[i], "--http-port"), std::to_string(expected[i]));
  }
}

TEST_F(StackPlanTest, WhatAnOperatorSetsReachesTheProgramsUnderTheirOwnNames) {
  options_.backup_folder = folder_.string();
  options_.journal_replica = folder_.string();
  options_.backup_seconds = 60;
  options_.backups_kept = 3;
  options_.log_format = "json";
  options_.dtype = "bf16";
  options_.scheduler_options = {"open-jobs-max=7"};
  options_.gateway_options = {"connections-max=9"};
  ASSERT_EQ(refusal(), "");
  const StackPlan plan = plan_stack(options_, {});
  const PlannedProcess &scheduler = plan.processes.front(), &worker = plan.processes[2], &gateway = plan.processes[3];
  EXPECT_EQ(value_of(scheduler, "--backup-folder"), fs::canonical(folder_).string());
  EXPECT_EQ(value_of(scheduler, "--journal-replica"), fs::canonical(folder_).string());
  EXPECT_EQ(value_of(scheduler, "--backup-seconds"), "60");
  EXPECT_EQ(value_of(scheduler, "--backups-kept"), "3");
  EXPECT_THAT(scheduler.arguments, ::testing::Contains("--open-jobs-max=7"));
  EXPECT_EQ(value_of(worker, "--dtype"), "bf16");
  EXPECT_THAT(gateway.arguments, ::testing::Contains("--connections-max=9"));
  for (const PlannedProcess& planned : plan.processes) EXPECT_EQ(value_of(planned, "--log-format"), "json");
}

TEST_F(StackPlanTest, OptionsThatContradictEachOtherAreRefused) {
  options_.backup_folder = "/nowhere";
  EXPECT_THAT(refusal(), HasSubstr("backup-folder: /nowhere is not a folder"));
  options_.backup_folder = folder_.string();
  options_.is_volatile = true;
  EXPECT_THAT(refusal(), HasSubstr("backup-folder: with --volatile there is no journal to copy"));
  std::swap(options_.backup_folder, options_.journal_replica);
  EXPECT_THAT(refusal(), HasSubstr("journal-replica: with --volatile there is no journal to copy"));
  options_.journal_replica.clear();
  options_.is_volatile = false;
  options_.scheduler_options = {"open-jobs-max"};
  EXPECT_THAT(refusal(), HasSubstr("scheduler-option is 'open-jobs-max', expected NAME=VALUE"));
  options_.scheduler_options.clear();
  options_.worker_options = {"dtype=fp16", "world=2"};
  EXPECT_THAT(refusal(), HasSubstr("worker-option: 'optserve up' itself tells optserve-worker its world"));
  options_.worker_options = {"dtype=fp16"};
  EXPECT_EQ(refusal(), "");
  options_.dtype = "bf16";
  EXPECT_THAT(refusal(), HasSubstr("tells optserve-worker its dtype"));
}

TEST_F(StackPlanTest, AStackWithoutAGatewayHasNoApi) {
  options_.no_gateway = true;
  ASSERT_EQ(refusal(), "");
  const StackPlan plan = plan_stack(options_, {});
  EXPECT_EQ(plan.api_url, "");
  EXPECT_EQ(plan.ports, (std::vector<int>{5555, 5556, 9400, 9401, 9402, 9403}));
  for (const PlannedProcess& planned : plan.processes) EXPECT_NE(planned.program, "optserve-gateway");
}

TEST_F(StackPlanTest, TheGatewayGetsTheTemplateForChats) {
  options_.chat_template = "plain";
  ASSERT_EQ(refusal(), "");
  EXPECT_EQ(value_of(plan_stack(options_, {}).processes.back(), "--chat-template"), "plain");
  options_.chat_template = "chat.json";
  ASSERT_EQ(refusal(), "");
  EXPECT_THAT(value_of(plan_stack(options_, {}).processes.back(), "--chat-template"),
              ::testing::EndsWith("/chat.json"));
  EXPECT_EQ(value_of(plan_stack(options_, {}).processes.back(), "--chat-template").front(), '/');
}

TEST_F(StackPlanTest, AVolatileStackHasNoJournal) {
  options_.is_volatile = true;
  ASSERT_EQ(refusal(), "");
  const StackPlan plan = plan_stack(options_, {});
  EXPECT_EQ(value_of(plan.processes[0], "--journal"), "(absent)");
  EXPECT_THAT(plan.processes[0].arguments, ::testing::Contains("--volatile"));
}

}  // namespace stack_plan_test
}  // namespace optserve::cli

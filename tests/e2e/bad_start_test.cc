// Processes that are started wrongly or on damaged files say what they expected and found, and do not restart for ever.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>

#include "cli/stack/child_process.h"
#include "demo_stack.h"

namespace optserve::test_support {
namespace bad_start_test {

using ::testing::HasSubstr;

constexpr int kExitConfiguration = 78;

struct Outcome {
  int status = -1;  // exit status
  std::string log;
};

class BadStart : public ::testing::Test {
 protected:
  // A copy of the demo checkpoint that a test may damage.
  std::string copy_checkpoint() {
    const std::string copy = folder_ / "copy";
    std::filesystem::copy(demo_checkpoint(), copy, std::filesystem::copy_options::recursive);
    return copy;
  }

  static std::string first_shard(const std::string& checkpoint) {
    for (const auto& entry : std::filesystem::directory_iterator(checkpoint)) {
      if (entry.path().extension() == ".safetensors") return entry.path();
    }
    return {};
  }

  Outcome run(const std::string& program, std::vector<std::string> arguments) {
    const std::string log = folder_ / "log";
    std::filesystem::remove(log);
    auto process = cli::ChildProcess::start({cli::sibling_program(program), std::move(arguments), log});
    const int status = process.wait();
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(log)};
  }

  Outcome run_worker(const std::string& model, std::vector<std::string> more = {}) {
    std::vector<std::string> arguments = {"--scheduler=tcp://127.0.0.1:1", "--model=" + model, "--http-port=0"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run("optserve-worker", arguments);
  }

  TemporaryFolder folder_;
};

TEST_F(BadStart, ATensorParallelSizeThatDoesNotDivideTheShardsNamesThoseThatDo) {
  const Outcome outcome = run_worker("demo=" + demo_checkpoint(), {"--world=3"});
  EXPECT_EQ(outcome.status, kExitConfiguration) << outcome.log;
  EXPECT_THAT(outcome.log, HasSubstr("1, 2, 4"));
}

TEST_F(BadStart, AMissingShardIsNamed) {
  const std::string copy = copy_checkpoint();
  const std::string shard = first_shard(copy);
  std::filesystem::remove(shard);
  const Outcome outcome = run_worker("demo=" + copy, {"--world=2"});
  EXPECT_EQ(outcome.status, kExitConfiguration) << outcome.log;
  EXPECT_THAT(outcome.log, HasSubstr(std::filesystem::path(shard).filename().string()));
}

TEST_F(BadStart, ATruncatedShardIsRefusedWithBothSizes) {
  const std::string copy = copy_checkpoint();
  const std::string shard = first_shard(copy);
  const auto size = std::filesystem::file_size(shard);
  std::filesystem::resize_file(shard, size - 100);
  const Outcome outcome = run_worker("demo=" + copy);
  EXPECT_EQ(outcome.status, kExitConfiguration) << outcome.log;
  EXPECT_THAT(outcome.log, HasSubstr(std::to_string(size)));
  EXPECT_THAT(outcome.log, HasSubstr(std::to_string(size - 100)));
}

TEST_F(BadStart, OneFlippedBitOfAShardIsFound) {
  const std::string copy = copy_checkpoint();
  const std::string shard = first_shard(copy);
  {
    std::fstream file(shard, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(-1000, std::ios::end);
    const char byte = static_cast<char>(file.get());
    file.seekp(-1000, std::ios::end);
    file.put(static_cast<char>(byte ^ 1));
  }
  const Outcome outcome = run_worker("demo=" + copy);
  EXPECT_EQ(outcome.status, kExitConfiguration) << outcome.log;
  EXPECT_THAT(outcome.log, HasSubstr(std::filesystem::path(shard).filename().string()));
}

TEST_F(BadStart, AManifestOfAnotherModelIsRefused) {
  const std::string copy = copy_checkpoint();
  std::string manifest = read_file(copy + "/manifest.json");
  const size_t at = manifest.find("\"num_layers\"");
  ASSERT_NE(at, std::string::npos);
  manifest.replace(manifest.find('8', at), 1, "9");
  std::ofstream(copy + "/manifest.json") << manifest;
  const Outcome outcome = run_worker("demo=" + copy);
  EXPECT_EQ(outcome.status, kExitConfiguration) << outcome.log;
  EXPECT_THAT(outcome.log, HasSubstr("layers"));
}

TEST_F(BadStart, AFolderWithoutAManifestIsNotACheckpoint) {
  const Outcome worker = run_worker("demo=" + folder_.path());
  EXPECT_EQ(worker.status, kExitConfiguration) << worker.log;
  EXPECT_THAT(worker.log, HasSubstr("manifest.json"));
  const Outcome tokenizer = run("optserve-tokenizer", {"--model=demo=" + folder_.path(), "--http-port=0"});
  EXPECT_NE(tokenizer.status, 0);
  EXPECT_THAT(tokenizer.log, HasSubstr("manifest.json"));
}

TEST_F(BadStart, ADraftModelThatIsNoneIsRefused) {
  const Outcome missing = run_worker("demo=" + demo_checkpoint(), {"--draft-model=/nowhere"});
  EXPECT_EQ(missing.status, kExitConfiguration) << missing.log;
  EXPECT_THAT(missing.log, HasSubstr("/nowhere"));
  const std::string other = copy_checkpoint();
  std::string manifest = read_file(other + "/manifest.json");
  const size_t at = manifest.find("\"vocab_real\": 4096");
  ASSERT_NE(at, std::string::npos) << manifest;
  std::ofstream(other + "/manifest.json") << manifest.replace(at, 18, "\"vocab_real\": 4000");
  const Outcome strange = run_worker("demo=" + demo_checkpoint(), {"--draft-model=" + other});
  EXPECT_EQ(strange.status, kExitConfiguration) << strange.log;
  EXPECT_THAT(strange.log, HasSubstr("ids, expected the 4096 of"));
}

TEST_F(BadStart, OptionsOutOfTheirRangeAreNamed) {
  EXPECT_THAT(run_worker("demo").log, HasSubstr("NAME=FOLDER"));
  EXPECT_THAT(run_worker("demo=x", {"--world=0"}).log, HasSubstr("world is 0, expected 1 to 64"));
  EXPECT_THAT(run_worker("demo=x", {"--device=tpu"}).log, HasSubstr("device is 'tpu', expected cpu or cuda"));
  EXPECT_NE(run_worker("demo=x", {"--no-such-option"}).status, 0);
}

TEST_F(BadStart, ADeviceThatIsNotBuiltInIsAClearError) {
  const Outcome outcome = run_worker("demo=" + demo_checkpoint(), {"--device=cuda"});
  EXPECT_EQ(outcome.status, kExitConfiguration) << outcome.log;
  EXPECT_THAT(outcome.log, HasSubstr("CUDA"));
}

}  // namespace bad_start_test
}  // namespace optserve::test_support

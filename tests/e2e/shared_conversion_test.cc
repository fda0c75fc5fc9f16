// Two real converter services on one conversion: both write shards, and one that is killed loses one shard only.
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <future>
#include <set>
#include <thread>

#include "checkpoint/reader.h"
#include "converter/export/export.h"
#include "converter/write/convert.h"
#include "demo_stack.h"
#include "support/processes.h"
#include "support/tiny_model.h"

namespace optserve::test_support {
namespace shared_conversion_test {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kLimit{120};
constexpr int kShards = 8;

class SharedConversion : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TemporaryFolder>();
    write_source();
  }
  static void TearDownTestSuite() { folder_.reset(); }

  void SetUp() override {
    StackOptions options;
    options.tokenizers = options.groups = 0;
    options.converters = 2;
    options.converter_arguments = {"--root=" + folder_->path(), "--pass-mib-max=1"};  // a pass for each shard
    stack_ = std::make_unique<DemoStack>(options);
    stack_->wait_ready();
  }

  // A Hugging Face folder of about 130 MB and the checkpoint that conversions of it must equal.
  static void write_source() {
    model_spec::OptConfig config;
    config.name = "source";
    config.num_layers = 8;
    config.hidden = config.embed_dim = 768;
    config.num_heads = 16;
    config.ffn = 3072;
    config.vocab = config.vocab_real = 8000;
    config.max_positions = 32;
    write_random_checkpoint(path("native"), config, 1, DType::kF16, kShards);
    converter::ExportOptions options;
    options.input = path("native");
    options.output = path("in");
    const auto exported = converter::export_checkpoint(options);
    ASSERT_TRUE(exported.ok()) << exported.refusal().message;
  }

  ProgramOutput convert_remotely(const std::string& input, const std::string& output, int parts) const {
    return run_program(
        "optserve", {"convert", "--remote", path(input), path(output), "--shards", std::to_string(kShards), "--parts",
                     std::to_string(parts), "--json", "--scheduler", stack_->client_endpoint()});
  }

  // Shards that somebody is writing.
  std::set<std::string> shards_at_work(const std::string& output) const {
    std::set<std::string> shards;
    std::error_code gone;  // files come and go
    for (const auto& entry : fs::directory_iterator(path("." + output + ".staging"), gone)) {
      if (const std::string name = entry.path().filename(); name.find(".part-") != std::string::npos) {
        shards.insert(name.substr(0, name.find('.')));
      }
    }
    return shards;
  }
  bool waits_for_two_writers(const std::string& output) const {
    const auto until = Clock::now() + kLimit;
    while (shards_at_work(output).size() < 2) {
      if (Clock::now() > until || fs::exists(path(output))) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }

  std::vector<std::string> digests(const std::string& output) const {
    const auto reader = checkpoint::CheckpointReader::open(path(output));
    if (!reader.ok()) return {reader.refusal().message};
    std::vector<std::string> list;
    for (const auto& file : reader.value().manifest().files) list.push_back(file.sha256);
    return list;
  }
  std::vector<std::string> hidden() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_->path())) {
      if (entry.path().filename().string().starts_with(".")) names.push_back(entry.path().filename());
    }
    return names;
  }
  static size_t count(const std::string& text, const std::string& word) {
    size_t found = 0;
    for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++found;
    return found;
  }

  static std::string path(const std::string& name) { return *folder_ / name; }

  static std::unique_ptr<TemporaryFolder> folder_;
  std::unique_ptr<DemoStack> stack_;
};
std::unique_ptr<TemporaryFolder> SharedConversion::folder_;

TEST_F(SharedConversion, GoesOnWhenOneOfTwoIsKilled) {
  auto done = std::async(std::launch::async, [&] { return convert_remotely("in", "killed", 2); });
  EXPECT_TRUE(waits_for_two_writers("killed")) << "one converter did it all";
  stack_->kill_converter(0);
  EXPECT_FALSE(fs::exists(path("killed"))) << "the model is too small: it was done before the kill";
  const ProgramOutput output = done.get();
  EXPECT_EQ(output.status, 0) << output.err << output.out;
  EXPECT_EQ(count(output.out, R"("state":"succeeded")"), 2u) << output.out;
  EXPECT_EQ(digests("killed"), digests("native"));
  EXPECT_EQ(hidden(), std::vector<std::string>{});
  EXPECT_TRUE(stack_->shut_down());
}

TEST_F(SharedConversion, JobsThatComeTooLateSucceedAsWell) {
  const ProgramOutput output = convert_remotely("in", "late", 5);
  EXPECT_EQ(output.status, 0) << output.err << output.out;
  EXPECT_EQ(count(output.out, R"("state":"succeeded")"), 5u) << output.out;
  EXPECT_GE(count(output.out, ", written before, from huggingface, 1 safetensors file\",\"text\""), 3u) << output.out;
  EXPECT_EQ(digests("late"), digests("native"));
  EXPECT_EQ(hidden(), std::vector<std::string>{});
  EXPECT_TRUE(stack_->shut_down());
}

TEST_F(SharedConversion, WhatIsNoCheckpointFailsEveryJob) {
  fs::copy(path("in"), path("cut"));
  fs::resize_file(path("cut/model.safetensors"), 1'000'000);
  const ProgramOutput output = convert_remotely("cut", "failed", 2);
  EXPECT_EQ(output.status, 1);
  EXPECT_EQ(count(output.out, R"("state":"failed")"), 2u) << output.out;
  EXPECT_FALSE(fs::exists(path("failed")));
  EXPECT_EQ(hidden(), std::vector<std::string>{});
}

}  // namespace shared_conversion_test
}  // namespace optserve::test_support

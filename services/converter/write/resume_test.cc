// Conversions in passes: what an attempt leaves behind, what the next attempt does with it, and several attempts at
// once. A shard of the model here is just above one MiB, so that --pass-mib-max 1 makes a pass of each.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "base/ids.h"
#include "checkpoint/reader.h"
#include "checkpoint/testing/tiny_config.h"
#include "checkpoint/torch/testing/pt_builder.h"
#include "converter/formats/mapper.h"
#include "converter/write/convert.h"

namespace optserve::converter {
namespace resume_test {

namespace fs = std::filesystem;
namespace op = checkpoint::testing::op;
using model_spec::TensorSpec;

constexpr int kShards = 4;
constexpr uint16_t kHalfInfinity = 0x7c00;

class Resume : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("optserve-resume-test-" + Id128::random().hex());
    fs::create_directory(root_);
    config_ = checkpoint::testing::tiny_config({.hidden = 256, .ffn = 1024, .vocab = 4096});
    config_.name = "out";
    write_source("in");
  }
  void TearDown() override { fs::remove_all(root_); }

  // One Metaseq part of finite halves; `bad_tensor` ends with infinity.
  void write_source(const std::string& name, const std::string& bad_tensor = "", uint32_t seed = 1) const {
    checkpoint::testing::PtBuilder builder;
    std::mt19937 random(seed);
    for (TensorSpec spec : model_spec::opt_tensors(config_)) {
      if (spec.name == "embed_positions.weight") spec.rows += 2;
      std::vector<uint16_t> values(static_cast<size_t>(spec.elements()));
      for (uint16_t& value : values) value = static_cast<uint16_t>(random() & 0xbbff);
      if (spec.name == bad_tensor) values.back() = kHalfInfinity;
      builder.add_tensor(metaseq_name(spec.name), DType::kF16, spec.shape(),
                         {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(uint16_t)});
    }
    builder.add_top_level("args", op::name_space({{"decoder_attention_heads", op::integer(config_.num_heads)}}));
    std::ofstream(root_ / (name + ".pt"), std::ios::binary) << builder.file();
  }

  ConvertOptions options(const std::string& output = "out", const std::string& input = "in") const {
    ConvertOptions chosen;
    chosen.input = (root_ / (input + ".pt")).string();
    chosen.output = (root_ / output).string();
    chosen.name = "model";
    chosen.shards = kShards;
    chosen.pass_mib_max = 1;
    return chosen;
  }
  fs::path staging() const { return root_ / ".out.staging"; }
  fs::path shard(int index) const { return staging() / "checkpoint" / checkpoint::shard_file_name(index, kShards); }

  // Converts until `shards` are finished and the next one is begun, and then ends as `end` says.
  void stop_after(int shards, const std::function<bool()>& end) const {
    ConvertOptions chosen = options();
    chosen.on_progress = [&](const ConvertProgress& at) {
      const uint64_t finished = at.bytes_total / kShards * static_cast<uint64_t>(shards);
      return at.bytes_done <= finished || end();
    };
    try {
      const auto result = convert(chosen, SystemClock());
      ASSERT_FALSE(result.ok());
      said_ = result.refusal().message;
    } catch (const Error& error) {
      said_ = error.what();
    }
  }
  static bool break_down() { throw Error("the disk is full"); }

  std::vector<std::string> digests(const std::string& output = "out") const {
    const auto reader = checkpoint::CheckpointReader::open((root_ / output).string());
    if (!reader.ok()) return {reader.refusal().message};
    std::vector<std::string> list;
    for (const auto& file : reader.value().manifest().files) list.push_back(file.sha256);
    return list;
  }
  // Of an undisturbed conversion in one pass.
  std::vector<std::string> expected(const std::string& quantise = "") const {
    ConvertOptions chosen = options("reference" + quantise);
    chosen.pass_mib_max = 0;
    if (!quantise.empty()) chosen.quantisation = quant::find_quantisation(quantise);
    const auto result = convert(chosen, SystemClock());
    return result.ok() ? digests("reference" + quantise) : std::vector{result.refusal().message};
  }
  // Of a file that is not written again.
  static std::pair<ino_t, int64_t> state_of(const fs::path& path) {
    struct stat info {};
    EXPECT_EQ(stat(path.c_str(), &info), 0) << path;
    return {info.st_ino, info.st_mtim.tv_sec * 1'000'000'000 + info.st_mtim.tv_nsec};
  }
  bool only_visible() const {
    for (const auto& entry : fs::directory_iterator(root_)) {
      if (entry.path().filename().string().starts_with(".")) return false;
    }
    return true;
  }

  fs::path root_;
  model_spec::OptConfig config_;
  mutable std::string said_;
};

TEST_F(Resume, PassesGiveTheSameBytes) {
  for (const std::string quantise : {"", "int8", "int8-mse", "fp8"}) {
    ConvertOptions chosen = options("passes" + quantise);
    if (!quantise.empty()) chosen.quantisation = quant::find_quantisation(quantise);
    const auto result = convert(chosen, SystemClock());
    ASSERT_TRUE(result.ok()) << result.refusal().message;
    EXPECT_EQ(digests("passes" + quantise), expected(quantise)) << quantise;
  }
  EXPECT_TRUE(only_visible());
}

TEST_F(Resume, ABreakdownLosesOnePass) {
  stop_after(2, break_down);
  EXPECT_NE(said_.find("the disk is full; 2 of 4 shards are finished and kept"), std::string::npos) << said_;
  EXPECT_FALSE(fs::exists(root_ / "out"));
  const auto first = state_of(shard(0)), second = state_of(shard(1));
  const auto result = convert(options(), SystemClock());
  ASSERT_TRUE(result.ok()) << result.refusal().message;
  EXPECT_EQ(digests(), expected());
  EXPECT_EQ(state_of(root_ / "out" / checkpoint::shard_file_name(0, kShards)), first);
  EXPECT_EQ(state_of(root_ / "out" / checkpoint::shard_file_name(1, kShards)), second);
  EXPECT_TRUE(only_visible());
  EXPECT_TRUE(convert(options(), SystemClock()).value().existed);
}

TEST_F(Resume, CancellingKeepsWhatIsFinishedAndNothingElse) {
  stop_after(0, [] { return false; });
  EXPECT_EQ(said_, "the conversion was cancelled");
  EXPECT_TRUE(only_visible());
  stop_after(1, [] { return false; });
  EXPECT_NE(said_.find("cancelled; 1 of 4 shards are finished"), std::string::npos) << said_;
  stop_after(3, [] { return false; });
  EXPECT_NE(said_.find("cancelled; 3 of 4 shards are finished"), std::string::npos) << said_;
  EXPECT_TRUE(convert(options(), SystemClock()).ok());
  EXPECT_EQ(digests(), expected());
}

TEST_F(Resume, ProgressGoesOnWhereItWas) {
  stop_after(3, break_down);
  ConvertOptions chosen = options();
  uint64_t least = UINT64_MAX, most = 0;
  chosen.on_progress = [&](const ConvertProgress& at) {
    least = std::min(least, at.bytes_done * 100 / at.bytes_total);
    most = std::max(most, at.bytes_done * 100 / at.bytes_total);
    return true;
  };
  ASSERT_TRUE(convert(chosen, SystemClock()).ok());
  EXPECT_GE(least, 75u);  // and not what one shard is
  EXPECT_EQ(most, 100u);
}

TEST_F(Resume, AnotherConversionIsRefusedUntilRestarted) {
  stop_after(1, break_down);
  ConvertOptions other = options();
  other.dtype = DType::kBF16;
  other.check_source = false;
  const auto refused = convert(other, SystemClock());
  ASSERT_FALSE(refused.ok());
  const std::string& text = refused.refusal().message;
  EXPECT_NE(text.find(R"(dtype (found "F16", expected "BF16"))"), std::string::npos) << text;
  EXPECT_NE(text.find("check_source (found true, expected false)"), std::string::npos) << text;
  EXPECT_TRUE(fs::exists(shard(0)));
  other.restart = true;
  ASSERT_TRUE(convert(other, SystemClock()).ok());
  EXPECT_TRUE(only_visible());
}

TEST_F(Resume, AnotherSourceIsAnotherConversion) {
  stop_after(1, break_down);
  write_source("in", "", 2);
  const auto refused = convert(options(), SystemClock());
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.refusal().message.find("source.files"), std::string::npos) << refused.refusal().message;
}

TEST_F(Resume, BadWeightsInTheLastPassLeaveNothing) {
  write_source("bad", "layers.1.ffn.up.bias");
  const auto refused = convert(options("out", "bad"), SystemClock());
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.refusal().message.find("layers.1.ffn.up.bias: 1 of 1024"), std::string::npos)
      << refused.refusal().message;
  EXPECT_TRUE(only_visible());
  EXPECT_FALSE(fs::exists(root_ / "out"));
}

// Row-cut, column-cut and replicated tensors.
TEST_F(Resume, AcceptedInfinitiesCountOnce) {
  for (const char* tensor : {"layers.1.ffn.up.weight", "layers.1.ffn.down.weight", "final_norm.bias"}) {
    write_source("bad", tensor);
    ConvertOptions chosen = options(std::string("out-") + tensor, "bad");
    chosen.allow_nonfinite = true;
    const auto result = convert(chosen, SystemClock());
    ASSERT_TRUE(result.ok()) << result.refusal().message;
    EXPECT_EQ(result.value().nonfinite, 1u) << tensor;
  }
}

TEST_F(Resume, TwoAtOnceShareTheWork) {
  std::array<int, 2> passes{};
  std::array<std::string, 2> said;
  std::vector<std::thread> threads;
  for (size_t i = 0; i < 2; ++i) {
    threads.emplace_back([&, i] {
      ConvertOptions chosen = options();
      std::string last = "none";
      chosen.on_progress = [&](const ConvertProgress& at) {
        if (at.tensor == "embed_tokens.weight" && last != at.tensor) ++passes[i];
        last = at.tensor;
        return true;
      };
      const auto result = convert(chosen, SystemClock());
      said[i] = result.ok() ? "" : result.refusal().message;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(said[0], "");
  EXPECT_EQ(said[1], "");
  EXPECT_EQ(passes[0] + passes[1], kShards);  // no shard twice
  EXPECT_EQ(digests(), expected());
  EXPECT_TRUE(only_visible());
}

// The shards of a process that fails are free for the processes that wait for them.
TEST_F(Resume, OneFinishesForAnotherThatBreaksDown) {
  std::atomic<bool> begun{false};
  std::thread other([&] {
    ConvertOptions chosen = options();
    chosen.pass_mib_max = 0;  // all shards at once
    chosen.on_progress = [&](const ConvertProgress& at) {
      begun = true;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      return at.bytes_done < at.bytes_total / 2 || break_down();
    };
    EXPECT_THROW((void)convert(chosen, SystemClock()), Error);
  });
  while (!begun) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  ConvertOptions chosen = options();
  bool waited = false;
  chosen.on_progress = [&](const ConvertProgress& at) {
    waited = waited || at.tensor.starts_with("(waiting");
    return true;
  };
  const auto result = convert(chosen, SystemClock());
  other.join();
  ASSERT_TRUE(result.ok()) << result.refusal().message;
  EXPECT_TRUE(waited);
  EXPECT_EQ(digests(), expected());
  EXPECT_TRUE(only_visible());
}

}  // namespace resume_test
}  // namespace optserve::converter

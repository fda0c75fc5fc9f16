#include "converter/write/conversion_identity.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/ids.h"
#include "checkpoint/testing/tiny_config.h"

namespace optserve::converter {
namespace existing_output_test {

namespace fs = std::filesystem;
using checkpoint::CheckpointWriter;

// A published checkpoint of two shards with a tokenizer.
class OutputFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("optserve-output-folder-" + Id128::random().hex());
    plan_.config = checkpoint::testing::tiny_config({.num_layers = 1});
    plan_.dtype = DType::kF16;
    plan_.shards = 2;
    publish();
  }
  void TearDown() override { fs::remove_all(folder_); }
  void publish() {
    auto writer = CheckpointWriter::create(folder_.string(), plan_);
    ASSERT_TRUE(writer.ok());
    const std::vector<std::byte> weights(writer.value()->shard_bytes());
    for (int shard = 0; shard < plan_.shards; ++shard) writer.value()->append(shard, weights);
    writer.value()->add_tokenizer(tokenizer_->vocab, tokenizer_->merges);
    ASSERT_TRUE(writer.value()->publish(source_, "test").ok());
  }
  bool is_output() const {
    return is_output_of(folder_.string(),
                        {.plan = plan_, .source = source_, .tokenizer = tokenizer_, .program = "optserve"});
  }

  fs::path folder_;
  CheckpointWriter::Plan plan_;
  checkpoint::SourceInfo source_{"metaseq, 2 parts",
                                 {{"a.pt", 100, std::string(64, 'a')}, {"b.pt", 7, std::string(64, 'b')}}};
  std::optional<TokenizerFiles> tokenizer_{{R"({"a":0,"b":1})", "#version: 0.2\n", 2}};
};

TEST_F(OutputFolder, IsThatOfTheSameConversion) { EXPECT_TRUE(is_output()); }

TEST_F(OutputFolder, IsNotThatOfAnotherPlan) {
  const CheckpointWriter::Plan plan = plan_;
  plan_.config.ffn = 64;
  EXPECT_FALSE(is_output());
  plan_ = plan;
  plan_.dtype = DType::kF32;
  EXPECT_FALSE(is_output());
  plan_ = plan;
  plan_.shards = 1;
  EXPECT_FALSE(is_output());
  plan_ = plan;
  plan_.quantisation = quant::find_quantisation("int8");
  EXPECT_FALSE(is_output());
}

TEST_F(OutputFolder, IsNotThatOfAnotherQuantisation) {
  fs::remove_all(folder_);
  plan_.quantisation = quant::find_quantisation("int8");
  publish();
  EXPECT_TRUE(is_output());
  for (const char* other : {"int8-mse", "fp8"}) {
    plan_.quantisation = quant::find_quantisation(other);
    EXPECT_FALSE(is_output()) << other;
  }
  plan_.quantisation.reset();
  EXPECT_FALSE(is_output());
}

TEST_F(OutputFolder, IsNotThatOfAnotherSource) {
  const checkpoint::SourceInfo source = source_;
  source_.files[1].index_sha256[0] = 'c';
  EXPECT_FALSE(is_output());
  source_ = source;
  source_.files[0].bytes = 101;
  EXPECT_FALSE(is_output());
  source_ = source;
  source_.files.pop_back();
  EXPECT_FALSE(is_output());
  source_ = source;
  source_.layout = "metaseq, 1 part";
  EXPECT_FALSE(is_output());
}

TEST_F(OutputFolder, IsNotThatOfAnotherTokenizer) {
  tokenizer_->merges += "a b\n";
  EXPECT_FALSE(is_output());
  tokenizer_.reset();
  EXPECT_FALSE(is_output());
}

TEST_F(OutputFolder, IsWhole) {
  fs::resize_file(folder_ / checkpoint::shard_file_name(1, 2), 10);
  EXPECT_FALSE(is_output());
  fs::remove(folder_ / checkpoint::shard_file_name(1, 2));
  EXPECT_FALSE(is_output());
}

TEST_F(OutputFolder, HasAManifest) {
  std::ofstream(folder_ / "manifest.json") << "{}";
  EXPECT_FALSE(is_output());
  fs::remove(folder_ / "manifest.json");
  EXPECT_FALSE(is_output());
}

}  // namespace existing_output_test
}  // namespace optserve::converter

#include "converter/export/export.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "base/ids.h"
#include "checkpoint/testing/tiny_config.h"
#include "checkpoint/writer.h"
#include "converter/export/export_layout.h"
#include "converter/export/shard_rows.h"

namespace optserve::converter {
namespace export_test {

namespace fs = std::filesystem;
using model_spec::TensorSpec;

// A checkpoint whose elements are their own numbers: element i of the tensor, in the order of the whole tensor, is i.
class Export : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("optserve-export-test-" + Id128::random().hex());
    fs::create_directory(root_);
    plan_.config = checkpoint::testing::tiny_config();
    plan_.dtype = DType::kF32;
    plan_.shards = 4;
    write();
  }
  void TearDown() override { fs::remove_all(root_); }

  void write() const {
    auto writer = checkpoint::CheckpointWriter::create(input(), plan_);
    ASSERT_TRUE(writer.ok()) << writer.refusal().message;
    for (int shard = 0; shard < plan_.shards; ++shard) {
      for (const TensorSpec& spec : model_spec::opt_tensors(plan_.config)) {
        std::vector<float> values;
        const model_spec::Block block = model_spec::block_of(spec, shard, plan_.shards);
        for (const auto& rows : block.rows) {
          for (int64_t r = rows.begin; r < rows.begin + rows.count; ++r) {
            for (int64_t c = block.col_begin; c < block.col_begin + block.cols; ++c) {
              values.push_back(static_cast<float>(r * spec.cols + c));
            }
          }
        }
        writer.value()->append(shard, std::as_bytes(std::span(values)));
      }
    }
    writer.value()->add_tokenizer(R"({"<s>":0,"<pad>":1,"</s>":2,"a":3})", "#version: 0.2\n");
    ASSERT_TRUE(writer.value()->publish({"test", {}}, "test").ok());
  }

  std::string input() const { return (root_ / "in").string(); }
  ExportOptions options(ExportFormat format, int parts = 1) const {
    ExportOptions chosen;
    chosen.input = input();
    chosen.output = (root_ / "out").string();
    chosen.format = format;
    chosen.parts = parts;
    return chosen;
  }

  fs::path root_;
  checkpoint::CheckpointWriter::Plan plan_;
};

TEST_F(Export, RectanglesOfEveryTensor) {
  const auto reader = checkpoint::CheckpointReader::open(input());
  ASSERT_TRUE(reader.ok());
  const auto rows = ShardRows::open(reader.value());
  ASSERT_TRUE(rows.ok());
  const unsigned seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const auto below = [&](int64_t limit) { return static_cast<int64_t>(random() % static_cast<uint64_t>(limit)); };
  for (const TensorSpec& spec : reader.value().tensors()) {
    for (int i = 0; i < 50; ++i) {
      const int64_t row = below(spec.rows);
      const int64_t count = 1 + below(spec.rows - row);
      const int64_t col = below(spec.cols);
      const int64_t cols = 1 + below(spec.cols - col);
      std::vector<float> found(static_cast<size_t>(count * cols), -1);
      rows.value().read(spec, {row, count}, col, cols, std::as_writable_bytes(std::span(found)));
      for (int64_t r = 0; r < count; ++r) {
        for (int64_t c = 0; c < cols; ++c) {
          ASSERT_EQ(found[static_cast<size_t>(r * cols + c)], static_cast<float>((row + r) * spec.cols + col + c))
              << spec.name << " row " << row + r << " column " << col + c;
        }
      }
    }
  }
}

TEST_F(Export, CancelledAtAnyMomentLeavesNothing) {
  for (const ExportFormat format : {ExportFormat::kHuggingFace, ExportFormat::kMetaseq}) {
    ExportOptions chosen = options(format);
    int allowed = 0;
    for (bool done = false; !done; allowed += 7) {
      int calls = 0;
      chosen.on_progress = [&](const ConvertProgress& at) {
        EXPECT_LE(at.bytes_done, at.bytes_total);
        return calls++ < allowed;
      };
      const Result<ExportResult> result = export_checkpoint(chosen);
      done = result.ok();
      if (done) continue;
      EXPECT_EQ(result.refusal().code, ErrorCode::kCancelled);
      ASSERT_EQ(std::distance(fs::directory_iterator(root_), {}), 1) << "after " << allowed << " calls";
    }
    EXPECT_GT(allowed, 30);
    fs::remove_all(chosen.output);
  }
}

TEST_F(Export, NeverReplacesWhatAppearsMeanwhile) {
  ExportOptions chosen = options(ExportFormat::kMetaseq, 2);
  chosen.on_progress = [&](const ConvertProgress& at) {
    if (at.tensor.empty()) std::ofstream(chosen.output) << "mine";
    return true;
  };
  const Result<ExportResult> result = export_checkpoint(chosen);
  ASSERT_FALSE(result.ok());
  EXPECT_NE(result.refusal().message.find("appeared meanwhile"), std::string::npos) << result.refusal().message;
  EXPECT_EQ(fs::file_size(chosen.output), 4u);
  EXPECT_EQ(std::distance(fs::directory_iterator(root_), {}), 2);
}

// Every element of the whole tensors is in the parts; only what all parts have is there more than once.
TEST_F(Export, PartsOfMetaseqHoldEveryElement) {
  for (int64_t parts : {1, 2, 4}) {
    int64_t total = 0;
    int64_t expected = parts * (1 + 2 * plan_.config.hidden);  // version and unused position rows
    for (const TensorSpec& spec : model_spec::opt_tensors(plan_.config)) {
      expected += spec.elements() * (spec.split == model_spec::Split::kReplicated ? parts : 1);
    }
    for (int64_t part = 0; part < parts; ++part) {
      for (const ExportTensor& tensor : metaseq_tensors(plan_.config, part, parts)) total += tensor.elements();
    }
    EXPECT_EQ(total, expected);
  }
  // Part 1 of 4 has head 1: rows 4 to 7 of k, v and q, which lie behind each other as q, k, v.
  for (const ExportTensor& tensor : metaseq_tensors(plan_.config, 1, 4)) {
    if (!tensor.name.ends_with("layers.0.self_attn.qkv_proj.weight")) continue;
    EXPECT_EQ(tensor.block.rows, (std::vector<model_spec::RowRange>{{20, 4}, {36, 4}, {4, 4}}));
    EXPECT_EQ(tensor.shape, (std::vector<int64_t>{12, 16}));
  }
}

TEST_F(Export, SpecialTokensComeFromTheVocabulary) {
  const auto settings = huggingface_tokenizer(plan_.config, R"({"<s>":0,"<pad>":1,"</s>":2})");
  ASSERT_TRUE(settings.ok());
  const auto special = nlohmann::json::parse(settings.value().special_tokens_map);
  EXPECT_EQ(special["bos_token"], "</s>");
  EXPECT_EQ(special["pad_token"], "<pad>");
  EXPECT_FALSE(huggingface_tokenizer(plan_.config, "{").ok());
}

TEST_F(Export, AQuantisedCheckpointIsRefused) {
  fs::remove_all(input());
  plan_.quantisation = quant::Quantisation{};
  {
    auto writer = checkpoint::CheckpointWriter::create(input(), plan_);
    ASSERT_TRUE(writer.ok()) << writer.refusal().message;
    const std::vector<std::byte> zeros(writer.value()->shard_bytes());
    for (int shard = 0; shard < plan_.shards; ++shard) writer.value()->append(shard, zeros);
    ASSERT_TRUE(writer.value()->publish({"test", {}}, "test").ok());
  }
  const auto result = export_checkpoint(options(ExportFormat::kHuggingFace));
  ASSERT_FALSE(result.ok());
  EXPECT_NE(result.refusal().message.find("quantised (int8)"), std::string::npos) << result.refusal().message;
  EXPECT_FALSE(fs::exists(root_ / "out"));
}

}  // namespace export_test
}  // namespace optserve::converter

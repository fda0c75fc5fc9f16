// Quantised matrices through writer and reader: the values and scales of every rank of every group size.
#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "base/ids.h"
#include "checkpoint/reader.h"
#include "checkpoint/testing/block_places.h"
#include "checkpoint/testing/tiny_config.h"
#include "checkpoint/writer.h"

namespace optserve::checkpoint {
namespace quantised_checkpoint_test {

namespace fs = std::filesystem;
using model_spec::Block;
using model_spec::TensorSpec;

class QuantisedCheckpoint : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("optserve-quantised-checkpoint-" + Id128::random().hex());
    fs::create_directory(root_);
    plan_.config = checkpoint::testing::tiny_config({.hidden = 512, .ffn = 1024});
    plan_.shards = 4;
    plan_.quantisation = quant::find_quantisation(GetParam());
  }
  void TearDown() override { fs::remove_all(root_); }

  std::string target() const { return (root_ / "model").string(); }
  quant::QuantFormat format() const { return plan_.quantisation->format; }

  // A value for each weight of the whole matrix: a byte, or half of one for int4.
  std::vector<uint8_t> values(const TensorSpec& spec) const {
    std::mt19937 random(static_cast<unsigned>(std::hash<std::string>{}(spec.name)));
    std::vector<uint8_t> all(static_cast<size_t>(spec.elements()));
    for (uint8_t& value : all) {
      value = static_cast<uint8_t>(random() & (format() == quant::QuantFormat::kInt4 ? 15 : 255));
    }
    return all;
  }
  // The scale of row `row` for input `col`, which depends on its place.
  float scale(const TensorSpec& spec, int64_t row, int64_t col) const {
    const int64_t group = format() == quant::QuantFormat::kInt4 ? col / 128 : 0;
    return static_cast<float>(row * 100 + group) + static_cast<float>(spec.name.size()) / 64;
  }

  // The block by its definition, weight by weight.
  std::vector<std::byte> block_values(const TensorSpec& spec, int rank, int world) const {
    const std::vector<uint8_t> all = values(spec);
    std::vector<uint8_t> flat;
    for (const auto& [row, col] : testing::places_of(model_spec::block_of(spec, rank, world))) {
      flat.push_back(all[static_cast<size_t>(row * spec.cols + col)]);
    }
    std::vector<std::byte> out;
    if (format() != quant::QuantFormat::kInt4) {
      for (const uint8_t value : flat) out.push_back(std::byte{value});
    } else {
      for (size_t i = 0; i < flat.size(); i += 2) out.push_back(static_cast<std::byte>(flat[i] | flat[i + 1] << 4));
    }
    return out;
  }
  std::vector<float> block_scales(const TensorSpec& spec, int rank, int world) const {
    const Block block = model_spec::block_of(spec, rank, world);
    const int64_t step = format() == quant::QuantFormat::kInt4 ? 128 : block.cols;
    std::vector<float> out;
    for (const auto& [row, col] : testing::places_of(block, step)) out.push_back(scale(spec, row, col));
    return out;
  }

  void write() const {
    auto writer = CheckpointWriter::create(target(), plan_);
    ASSERT_TRUE(writer.ok()) << writer.refusal().message;
    for (int shard = 0; shard < plan_.shards; ++shard) {
      for (const TensorSpec& spec : model_spec::opt_tensors(plan_.config)) {
        if (!spec.quantisable) {
          const auto elements = static_cast<size_t>(model_spec::block_of(spec, shard, plan_.shards).elements());
          writer.value()->append(shard, std::vector<std::byte>(elements * 2, std::byte{7}));
          continue;
        }
        const std::vector<float> scales = block_scales(spec, shard, plan_.shards);
        writer.value()->append(shard, block_values(spec, shard, plan_.shards));
        writer.value()->append(shard, std::as_bytes(std::span(scales)));
      }
    }
    const Status status = writer.value()->publish({"test", {}}, "optserve test");
    ASSERT_TRUE(status.ok()) << status.refusal().message;
  }

  fs::path root_;
  CheckpointWriter::Plan plan_;
};

INSTANTIATE_TEST_SUITE_P(Formats, QuantisedCheckpoint, ::testing::Values("int8", "fp8", "int4"));

TEST_P(QuantisedCheckpoint, EveryRankOfEveryGroupSizeGetsItsValuesAndScales) {
  write();
  const Result<CheckpointReader> opened = CheckpointReader::open(target());
  ASSERT_TRUE(opened.ok()) << opened.refusal().message;
  const CheckpointReader& reader = opened.value();
  EXPECT_EQ(reader.manifest().quantisation, plan_.quantisation);
  for (int world : {1, 2, 4}) {
    for (const TensorSpec& spec : reader.tensors()) {
      EXPECT_EQ(reader.format(spec), spec.quantisable ? format() : quant::QuantFormat::kF16) << spec.name;
      if (!spec.quantisable) {
        EXPECT_EQ(reader.block_scales(spec, world), 0);
        continue;
      }
      for (int rank = 0; rank < world; ++rank) {
        std::vector<std::byte> found(reader.block_bytes(spec, world));
        std::vector<float> scales(static_cast<size_t>(reader.block_scales(spec, world)));
        reader.read_block(spec, rank, world, found);
        reader.read_scales(spec, rank, world, scales);
        ASSERT_EQ(found, block_values(spec, rank, world)) << spec.name << " rank " << rank << " of " << world;
        ASSERT_EQ(scales, block_scales(spec, rank, world)) << spec.name << " rank " << rank << " of " << world;
      }
    }
  }
}

TEST_P(QuantisedCheckpoint, NamesShapesAndTypesAreStandard) {
  write();
  const auto file = InputFile::open(target() + "/" + shard_file_name(1, 4));
  ASSERT_TRUE(file.ok());
  const auto header = read_safetensors(*file.value());
  ASSERT_TRUE(header.ok()) << header.refusal().message;
  const auto text = [&](const char* name) {
    const StoredTensor* found = header.value().find(name);
    return found == nullptr ? "absent" : std::string(dtype_name(found->dtype)) + shape_text(found->shape);
  };
  const bool is_int4 = format() == quant::QuantFormat::kInt4;
  const std::string type = is_int4 ? "U8" : format() == quant::QuantFormat::kInt8 ? "I8" : "F8_E4M3";
  EXPECT_EQ(text("layers.1.attention.qkv.weight"), type + (is_int4 ? "[384, 256]" : "[384, 512]"));
  EXPECT_EQ(text("layers.1.attention.qkv.weight_scale"), is_int4 ? "F32[384, 4]" : "F32[384]");
  EXPECT_EQ(text("layers.0.ffn.down.weight"), type + (is_int4 ? "[512, 128]" : "[512, 256]"));
  EXPECT_EQ(text("layers.0.ffn.down.weight_scale"), is_int4 ? "F32[512, 2]" : "F32[512]");
  EXPECT_EQ(text("layers.0.attention.qkv.bias"), "F16[384]");
  EXPECT_EQ(text("layers.0.attention.qkv.bias_scale"), "absent");
  EXPECT_EQ(text("embed_tokens.weight"), "F16[10, 512]");
  EXPECT_EQ(header.value().tensors.size(), model_spec::opt_tensors(plan_.config).size() + 8);
}

TEST_P(QuantisedCheckpoint, RefusesShardsOfAnotherFormat) {
  write();
  const fs::path quantised = root_ / "quantised";
  fs::rename(target(), quantised);
  const std::string type = GetParam();
  plan_.quantisation = quant::find_quantisation(type == "int8" ? "fp8" : "int8");
  write();
  Result<std::string> text = read_text_file(target() + "/manifest.json", kManifestBytesMax);
  ASSERT_TRUE(text.ok());
  Result<Manifest> manifest = parse_manifest(text.value());
  ASSERT_TRUE(manifest.ok());
  for (int i = 0; i < 4; ++i) {
    const std::string name = shard_file_name(i, 4);
    fs::copy_file(quantised / name, fs::path(target()) / name, fs::copy_options::overwrite_existing);
    manifest.value().files[static_cast<size_t>(i)].bytes = fs::file_size(quantised / name);
  }
  fs::remove(target() + "/manifest.json");
  {
    auto file = std::fopen((target() + "/manifest.json").c_str(), "w");
    ASSERT_NE(file, nullptr);
    std::fputs(manifest_text(manifest.value()).c_str(), file);
    std::fclose(file);
  }
  const Result<CheckpointReader> reader = CheckpointReader::open(target());
  ASSERT_FALSE(reader.ok());
  EXPECT_NE(reader.refusal().message.find("'layers.0.ffn.up.weight' is "), std::string::npos)
      << reader.refusal().message;
}

TEST(QuantisedShards, CountsThatCutGroupsOfInt4AreRefusedWithThoseThatWork) {
  ShardPlan plan{*model_spec::find_published("opt-125m"), DType::kF16, 4, quant::find_quantisation("int4")};
  const Status status = check_shards(plan);
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.refusal().message.find("shards is 4, the model allows 1, 2, 3, 6 in int4"), std::string::npos)
      << status.refusal().message;
  EXPECT_FALSE(CheckpointWriter::create("/nowhere/model", plan).ok());
  for (const int shards : {1, 2}) {
    plan.shards = shards;
    EXPECT_TRUE(check_shards(plan).ok()) << shards;
  }
  plan.quantisation = quant::find_quantisation("int8");
  plan.shards = 4;
  EXPECT_TRUE(check_shards(plan).ok());
}

}  // namespace quantised_checkpoint_test
}  // namespace optserve::checkpoint

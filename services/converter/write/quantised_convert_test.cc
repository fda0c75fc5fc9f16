// Conversion to every quantised format: what is stored is what quantise_rows() makes of the source's whole rows,
// however many shards there are.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "base/ids.h"
#include "checkpoint/reader.h"
#include "checkpoint/testing/tiny_config.h"
#include "checkpoint/torch/testing/pt_builder.h"
#include "converter/commands/inspect_command.h"
#include "converter/formats/mapper.h"
#include "converter/write/convert.h"
#include "quant/quantise.h"

namespace optserve::converter {
namespace quantised_convert_test {

namespace fs = std::filesystem;
namespace op = checkpoint::testing::op;
using model_spec::TensorSpec;
using Halves = std::vector<uint16_t>;

class QuantisedConvert : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("optserve-quantised-convert-" + Id128::random().hex());
    fs::create_directory(root_);
    config_ = checkpoint::testing::tiny_config({.num_layers = 1, .hidden = 256, .num_heads = 8, .ffn = 512});
  }
  void TearDown() override { fs::remove_all(root_); }

  static Halves halves_of(const TensorSpec& spec) {
    std::mt19937 random(static_cast<unsigned>(std::hash<std::string>{}(spec.name)));
    std::normal_distribution<float> normal(0, 0.05f);
    Halves values(static_cast<size_t>(spec.elements()));
    for (uint16_t& value : values) value = float_to_half(normal(random));
    return values;
  }

  // One Metaseq part; `change` may alter a tensor before it is written.
  void write_source(const std::function<void(const std::string&, Halves&)>& change = {}) const {
    checkpoint::testing::PtBuilder builder;
    const auto add = [&](const std::string& name, std::vector<int64_t> shape, const Halves& values) {
      builder.add_tensor(name, DType::kF16, shape,
                         {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(uint16_t)});
    };
    builder.add_top_level("args", op::name_space({{"decoder_attention_heads", op::integer(config_.num_heads)}}));
    for (const TensorSpec& spec : model_spec::opt_tensors(config_)) {
      Halves values = halves_of(spec);
      if (change) change(spec.name, values);
      std::vector<int64_t> shape = spec.shape();
      const std::string name = metaseq_name(spec.name);
      const auto third = static_cast<long>(values.size() / 3);
      if (spec.split == model_spec::Split::kQkvRows) std::rotate(values.begin(), values.begin() + third, values.end());
      if (spec.name == "embed_positions.weight") {
        shape[0] += 2;
        values.insert(values.begin(), static_cast<size_t>(2 * config_.hidden), 0);
      }
      add(name, shape, values);
    }
    fs::create_directories(root_ / "in");
    std::ofstream(root_ / "in/reshard.pt", std::ios::binary) << builder.file();
  }

  ConvertOptions options(const std::string& quantisation, int shards) const {
    ConvertOptions chosen;
    chosen.input = (root_ / "in").string();
    chosen.output = (root_ / (quantisation + "-" + std::to_string(shards))).string();
    chosen.quantisation = quant::find_quantisation(quantisation);
    chosen.shards = shards;
    return chosen;
  }

  struct Stored {
    std::vector<std::byte> values;
    std::vector<float> scales;
  };
  static Stored expected(const TensorSpec& spec, const quant::Quantisation& how) {
    const Halves halves = halves_of(spec);
    std::vector<float> wide(halves.size());
    convert_to_f32(halves.data(), DType::kF16, wide.data(), wide.size());
    Stored stored{std::vector<std::byte>(static_cast<size_t>(spec.rows * elements_per_row(how.format, spec.cols))),
                  std::vector<float>(static_cast<size_t>(spec.rows * scales_per_row(how.format, spec.cols)))};
    quant::quantise_rows(how, wide, spec.cols, stored.values, stored.scales);
    return stored;
  }

  void expect_stored(const ConvertOptions& chosen) const {
    const auto opened = checkpoint::CheckpointReader::open(chosen.output);
    ASSERT_TRUE(opened.ok()) << opened.refusal().message;
    const checkpoint::CheckpointReader& reader = opened.value();
    for (const TensorSpec& spec : reader.tensors()) {
      std::vector<std::byte> values(reader.block_bytes(spec, 1));
      std::vector<float> scales(static_cast<size_t>(reader.block_scales(spec, 1)));
      reader.read_block(spec, 0, 1, values);
      if (!spec.quantisable) {
        const Halves source = halves_of(spec);
        ASSERT_TRUE(std::ranges::equal(values, std::as_bytes(std::span(source)))) << spec.name;
        continue;
      }
      reader.read_scales(spec, 0, 1, scales);
      const Stored wanted = expected(spec, *chosen.quantisation);
      ASSERT_EQ(values, wanted.values) << spec.name << " in " << chosen.output;
      ASSERT_EQ(scales, wanted.scales) << spec.name << " in " << chosen.output;
    }
  }

  fs::path root_;
  model_spec::OptConfig config_;
};

TEST_F(QuantisedConvert, TheSameValuesAtEveryShardCount) {
  write_source();
  for (const char* name : {"int8", "int8-mse", "fp8", "int4"}) {
    for (const int shards : {1, 2, 4, 8}) {
      if (std::string_view(name) == "int4" && shards > 2) continue;
      const ConvertOptions chosen = options(name, shards);
      const auto result = convert(chosen, SystemClock());
      ASSERT_TRUE(result.ok()) << result.refusal().message;
      EXPECT_EQ(result.value().shards, shards);
      expect_stored(chosen);
    }
  }
}

// Matrices of more than one piece, by rows and by columns.
TEST_F(QuantisedConvert, PiecesOfRowsJoin) {
  config_.ffn = 20480;
  write_source();
  for (const char* name : {"int8", "int4"}) {
    const ConvertOptions chosen = options(name, 2);
    uint64_t done = 0;
    uint64_t total = 0;
    ConvertOptions watched = chosen;
    watched.on_progress = [&](const ConvertProgress& at) {
      done = at.bytes_done;
      total = at.bytes_total;
      return true;
    };
    ASSERT_TRUE(convert(watched, SystemClock()).ok());
    EXPECT_EQ(done, total);
    expect_stored(chosen);
  }
}

TEST_F(QuantisedConvert, Int4ChoosesAndNamesShardCountsOfWholeGroups) {
  write_source();
  const auto refused = convert(options("int4", 4), SystemClock());
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.refusal().message.find("shards is 4, the model allows 1, 2 in int4"), std::string::npos)
      << refused.refusal().message;
  const auto chosen = convert(options("int4", 0), SystemClock());
  ASSERT_TRUE(chosen.ok()) << chosen.refusal().message;
  EXPECT_EQ(chosen.value().shards, 2);
  EXPECT_EQ(convert(options("int8", 0), SystemClock()).value().shards, 8);
}

TEST_F(QuantisedConvert, AModelWithoutWholeGroupsIsRefusedInInt4) {
  config_.hidden = config_.embed_dim = 192;
  write_source();
  const auto refused = convert(options("int4", 0), SystemClock());
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.refusal().message.find("the model allows none in int4"), std::string::npos)
      << refused.refusal().message;
}

TEST_F(QuantisedConvert, OtherTensorsKeepTheirType) {
  write_source();
  ConvertOptions chosen = options("int8", 1);
  chosen.dtype = DType::kF32;
  ASSERT_TRUE(convert(chosen, SystemClock()).ok());
  const auto reader = checkpoint::CheckpointReader::open(chosen.output);
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ(reader.value().dtype(), DType::kF32);
  const auto description = inspect(chosen.output);
  ASSERT_TRUE(description.ok());
  EXPECT_EQ(description.value()["quantisation"], "int8");
  EXPECT_EQ(description.value()["dtypes"]["I8"], 4);
  EXPECT_EQ(description.value()["dtypes"]["F32"], 16);  // 12 tensors, 4 sets of scales
  EXPECT_NE(inspect_text(description.value(), true).find("layers.0.ffn.up.weight_scale F32[512]"), std::string::npos);
}

TEST_F(QuantisedConvert, NanInAMatrixIsRefusedEvenWhereItIsAllowed) {
  write_source([](const std::string& name, Halves& values) {
    if (name == "layers.0.ffn.down.weight") values[5] = 0x7e00;
  });
  for (const char* name : {"int8", "int8-mse", "fp8", "int4"}) {
    for (const bool allowed : {false, true}) {
      ConvertOptions chosen = options(name, 2);
      chosen.allow_nonfinite = allowed;
      const auto result = convert(chosen, SystemClock());
      ASSERT_FALSE(result.ok());
      EXPECT_NE(result.refusal().message.find("layers.0.ffn.down.weight: 1 of 131072"), std::string::npos)
          << result.refusal().message;
      EXPECT_EQ(result.refusal().message.find("cannot hold") != std::string::npos, allowed);
      EXPECT_FALSE(fs::exists(chosen.output));
    }
  }
}

TEST_F(QuantisedConvert, NanElsewhereIsAllowedAsBefore) {
  write_source([](const std::string& name, Halves& values) {
    if (name == "layers.0.ffn.up.bias") values[5] = 0x7c00;
  });
  ConvertOptions chosen = options("int8", 2);
  EXPECT_FALSE(convert(chosen, SystemClock()).ok());
  chosen.allow_nonfinite = true;
  const auto result = convert(chosen, SystemClock());
  ASSERT_TRUE(result.ok()) << result.refusal().message;
  EXPECT_EQ(result.value().nonfinite, 1u);
}

TEST_F(QuantisedConvert, AnotherQuantisationIsNotTheSameConversion) {
  write_source();
  ConvertOptions chosen = options("int8", 2);
  ASSERT_TRUE(convert(chosen, SystemClock()).ok());
  EXPECT_TRUE(convert(chosen, SystemClock()).value().existed);
  for (const char* other : {"int8-mse", "fp8"}) {
    chosen.quantisation = quant::find_quantisation(other);
    const auto refused = convert(chosen, SystemClock());
    ASSERT_FALSE(refused.ok()) << other;
    EXPECT_NE(refused.refusal().message.find("exists already"), std::string::npos);
  }
}

}  // namespace quantised_convert_test
}  // namespace optserve::converter

// Smoothing changes weights and activations, but not what the model computes.
#include "converter/transform/smoothing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>

#include "base/hex.h"
#include "base/sha256.h"
#include "checkpoint/reader.h"
#include "converter/export/export.h"
#include "converter/transform/calibrate.h"
#include "converter/verify/engine_weights.h"
#include "converter/verify/golden_prompt.h"
#include "converter/verify/verify.h"
#include "support/demo_model.h"
#include "support/sanitized.h"
#include "support/temporary_folder.h"
#include "support/tiny_model.h"

namespace optserve::converter {
namespace smoothing_test {

using model_spec::TensorSpec;
using test_support::kSanitized;
using test_support::TemporaryFolder;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

// The tensors of a converted checkpoint as rows.
class CheckpointRows final : public WeightRows {
 public:
  explicit CheckpointRows(const checkpoint::CheckpointReader& reader) : reader_(reader) {}
  const model_spec::OptConfig& config() const override { return reader_.config(); }
  DType dtype(const TensorSpec&) const override { return reader_.dtype(); }
  void read_rows(const TensorSpec& spec, int64_t row, int64_t count, std::span<std::byte> out) const override {
    std::vector<std::byte> all(reader_.block_bytes(spec, 1));
    reader_.read_block(spec, 0, 1, all);
    const size_t row_bytes = all.size() / static_cast<size_t>(spec.rows);
    std::ranges::copy(
        std::span(all).subspan(static_cast<size_t>(row) * row_bytes, static_cast<size_t>(count) * row_bytes),
        out.begin());
  }

 private:
  const checkpoint::CheckpointReader& reader_;
};

std::vector<float> logits_of(const WeightRows& rows) {
  return *golden_logits(EngineWeights(rows, DType::kF32), golden_prompt(rows.config()), [] { return true; });
}

// Factors from a quarter to four for the chosen matrices.
std::vector<LayerFactors> random_factors(const model_spec::OptConfig& config, const std::vector<size_t>& matrices) {
  std::mt19937 random(static_cast<unsigned>(17 + matrices.front()));
  std::uniform_real_distribution<float> exponent(-2, 2);
  std::vector<LayerFactors> layers(static_cast<size_t>(config.num_layers));
  for (LayerFactors& layer : layers) {
    for (const size_t matrix : matrices) {
      layer[matrix].resize(static_cast<size_t>(inputs_of(config, matrix)));
      for (float& factor : layer[matrix]) factor = std::exp2(exponent(random));
    }
  }
  return layers;
}

TEST(SmoothingFactors, AreOfTheFormulaAndBounded) {
  const std::vector<float> inputs = {4, 16, 0, 1, 1e-8f, 1e8f, HUGE_VALF, NAN};
  const std::vector<float> columns = {0.25f, 4, 1, 0, 1, 1, 1, 1};
  EXPECT_THAT(smoothing_factors(inputs, columns, 0.5), ElementsAre(4, 2, 1, 1, 0x1p-10f, 0x1p10f, 1, 1));
  EXPECT_THAT(smoothing_factors(std::span(inputs).first(2), std::span(columns).first(2), 1), ElementsAre(4, 16));
  EXPECT_THAT(smoothing_factors(std::span(inputs).first(2), std::span(columns).first(2), 0), ElementsAre(4, 0.25f));
}

// Each fold alone, and all together, in every kind of model: the same logits from other weights.
TEST(SmoothedRows, ComputeTheSame) {
  for (const model_spec::OptConfig& config : test_support::tiny_configs()) {
    const TemporaryFolder folder;
    test_support::write_random_checkpoint(folder / "plain", config, 5, DType::kF32, 1);
    const auto reader = checkpoint::CheckpointReader::open(folder / "plain");
    const CheckpointRows rows(reader.value());
    const std::vector<float> wanted = logits_of(rows);
    std::vector<std::vector<size_t>> choices = {{kOutMatrix}, {kDownMatrix}, {kOutMatrix, kDownMatrix}};
    if (config.norm_before) {
      choices.insert(choices.end(), {{kQkvMatrix}, {kUpMatrix}, {kQkvMatrix, kOutMatrix, kUpMatrix, kDownMatrix}});
    }
    if (kSanitized) choices.erase(choices.begin(), choices.end() - 1);
    for (const std::vector<size_t>& matrices : choices) {
      const SmoothedRows smoothed(rows, random_factors(config, matrices));
      const LogitDifference found = compare_logits(wanted, logits_of(smoothed), config.vocab);
      EXPECT_LT(found.largest, 1e-4) << config.name << ", matrix " << matrices.front() << " of " << matrices.size();
      EXPECT_GT(found.largest, 0) << "other weights round otherwise";
    }
  }
}

// Where norms come after the blocks, their output is the residual stream, so folding factors into them changes the
// model.
TEST(SmoothedRows, NormsAfterTheBlocksCannotTakeFactors) {
  for (const model_spec::OptConfig& config : test_support::tiny_configs()) {
    if (config.norm_before) continue;
    const TemporaryFolder folder;
    test_support::write_random_checkpoint(folder / "plain", config, 5, DType::kF32, 1);
    const auto reader = checkpoint::CheckpointReader::open(folder / "plain");
    const CheckpointRows rows(reader.value());
    const SmoothedRows smoothed(rows, random_factors(config, {kUpMatrix}));
    EXPECT_GT(compare_logits(logits_of(rows), logits_of(smoothed), config.vocab).relative, 0.01);
    ActivationRanges ranges;
    ranges.layers.resize(static_cast<size_t>(config.num_layers));
    for (auto& layer : ranges.layers) {
      for (size_t matrix = 0; matrix < layer.size(); ++matrix) {
        layer[matrix].largest.assign(static_cast<size_t>(inputs_of(config, matrix)), 1);
      }
    }
    const auto factors = find_factors(rows, ranges, 0.5, [] { return true; });
    for (const LayerFactors& layer : *factors) {
      EXPECT_TRUE(layer[kQkvMatrix].empty() && layer[kUpMatrix].empty());
      EXPECT_TRUE(!layer[kOutMatrix].empty() && !layer[kDownMatrix].empty());
    }
    return;
  }
  FAIL() << "no such model";
}

class Smooth : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared_ = std::make_unique<TemporaryFolder>();
    test_support::convert_demo_model(*shared_ / "demo", 2);
    write_ranges(*shared_ / "demo", *shared_ / "ranges");
  }
  static void TearDownTestSuite() { shared_.reset(); }
  void SetUp() override {
    options_.input = test_support::demo_file("");
    options_.smooth_ranges = *shared_ / "ranges";
    options_.shards = 2;
  }

  static ActivationRanges ranges_of(const std::string& checkpoint) {
    const std::string text =
        test_support::read_file(test_support::demo_file("heldout.txt")).substr(0, kSanitized ? 200 : 4096);
    return calibrate({.checkpoint = checkpoint, .text = text}).value();
  }
  static void write_ranges(const std::string& checkpoint, const std::string& path) {
    std::ofstream(path, std::ios::binary) << ranges_file(ranges_of(checkpoint));
  }
  void convert_to(const std::string& name) {
    options_.output = folder_ / name;
    const auto result = convert(options_, SystemClock());
    ASSERT_TRUE(result.ok()) << result.refusal().message;
    EXPECT_THAT(result.value().warnings, IsEmpty());
  }
  std::string refusal() {
    options_.output = folder_ / "refused";
    const auto result = convert(options_, SystemClock());
    return result.ok() ? "accepted" : result.refusal().message;
  }

  static inline std::unique_ptr<TemporaryFolder> shared_;  // the demo model and its ranges, which no test changes
  TemporaryFolder folder_;
  ConvertOptions options_;
};

TEST_F(Smooth, AModelInFp32GivesTheSameLogits) {
  options_.dtype = DType::kF32;
  convert_to("smoothed");
  const auto report = verify(options_);
  ASSERT_TRUE(report.ok()) << report.refusal().message;
  EXPECT_THAT(report.value().faults(), IsEmpty());
  EXPECT_EQ(report.value().weights.worst, 0) << "the smoothed source, to the bit";
  EXPECT_GT(report.value().logits.largest, 0);
  EXPECT_LT(report.value().logits.largest, 1e-4);
  EXPECT_EQ(report.value().logits.same_best, 16);
}

TEST_F(Smooth, EveryFormatIsVerified) {
  for (const char* quantisation : {"int4", "none", "int8", "fp8"}) {
    options_.quantisation = quant::find_quantisation(quantisation);
    convert_to(quantisation);
    const auto report = verify(options_);
    ASSERT_TRUE(report.ok()) << report.refusal().message;
    EXPECT_THAT(report.value().faults(), IsEmpty()) << quantisation;
    ConvertOptions plain = options_;
    plain.smooth_ranges.clear();
    EXPECT_THAT(verify(plain).value().weights.faults, Not(IsEmpty())) << "these are not the source's weights";
    if (kSanitized) break;
  }
}

// Inputs shrink by the factor by which the weights grow.
TEST_F(Smooth, ActivationsAreDividedByTheFactors) {
  options_.dtype = DType::kF32;
  convert_to("smoothed");
  const ActivationRanges before = ranges_of(*shared_ / "demo"), after = ranges_of(folder_ / "smoothed");
  const auto reader = checkpoint::CheckpointReader::open(*shared_ / "demo");
  const auto factors = find_factors(CheckpointRows(reader.value()), before, options_.smooth_alpha, [] { return true; });
  for (size_t layer = 0; layer < before.layers.size(); ++layer) {
    for (size_t matrix = 0; matrix < kLargeMatrices.size(); ++matrix) {
      for (size_t j = 0; j < before.layers[layer][matrix].largest.size(); ++j) {
        const float wanted = before.layers[layer][matrix].largest[j] / (*factors)[layer][matrix][j];
        ASSERT_NEAR(after.layers[layer][matrix].largest[j], wanted, 1e-3f * wanted + 1e-5f)
            << "layer " << layer << ", matrix " << matrix << ", channel " << j;
      }
    }
  }
}

TEST_F(Smooth, TheManifestSaysWithWhat) {
  convert_to("smoothed");
  const auto reader = checkpoint::CheckpointReader::open(folder_ / "smoothed");
  const auto& smoothing = reader.value().manifest().source.smoothing;
  ASSERT_TRUE(smoothing.has_value());
  EXPECT_EQ(smoothing->alpha, 0.5);
  EXPECT_EQ(smoothing->ranges_sha256, to_hex(sha256(test_support::read_file(*shared_ / "ranges"))));
  EXPECT_TRUE(convert(options_, SystemClock()).value().existed);
  options_.smooth_alpha = 0.75;
  EXPECT_FALSE(convert(options_, SystemClock()).ok()) << "another conversion";
  options_.smooth_ranges.clear();
  EXPECT_FALSE(convert(options_, SystemClock()).ok()) << "another conversion";
}

TEST_F(Smooth, RefusesRangesOfOtherModelsAndWrongOptions) {
  for (const double alpha : {-0.1, 1.5, std::nan("")}) {
    options_.smooth_alpha = alpha;
    EXPECT_THAT(refusal(), HasSubstr("expected 0 to 1")) << alpha;
  }
  options_.smooth_alpha = 0.5;
  ActivationRanges ranges = ranges_of(*shared_ / "demo");
  ranges.vectors_sha256.replace(0, 2, ranges.vectors_sha256.starts_with("00") ? "11" : "00");
  std::ofstream(folder_ / "other", std::ios::binary) << ranges_file(ranges);
  options_.smooth_ranges = folder_ / "other";
  EXPECT_THAT(refusal(), HasSubstr("was measured on another model (demo)"));
  options_.smooth_ranges = test_support::demo_file("README.md");
  EXPECT_THAT(refusal(), HasSubstr("README.md"));
  options_.smooth_ranges = folder_ / "absent";
  EXPECT_THAT(refusal(), HasSubstr("absent"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "refused"));
}

// A smoothed checkpoint is another model: its own biases differ.
TEST_F(Smooth, RangesOfASmoothedModelDoNotFitItsSource) {
  convert_to("smoothed");
  write_ranges(folder_ / "smoothed", folder_ / "again");
  options_.smooth_ranges = folder_ / "again";
  EXPECT_THAT(refusal(), HasSubstr("was measured on another model (smoothed)"));
}

// Through files, with the warning: the kind of OPT-350M.
TEST(SmoothAfter, SkipsWhatItCannotAndSaysSo) {
  for (const model_spec::OptConfig& config : test_support::tiny_configs()) {
    if (config.norm_before) continue;
    const TemporaryFolder folder;
    test_support::write_random_checkpoint(folder / "plain", config, 7, DType::kF32, 1);
    ExportOptions exported;
    exported.input = folder / "plain";
    exported.output = folder / "foreign";
    ASSERT_TRUE(export_checkpoint(exported).ok());
    const auto reader = checkpoint::CheckpointReader::open(folder / "plain");
    ActivationRanges ranges;
    ranges.model = "tiny";
    ranges.dtype = DType::kF32;
    ranges.text_sha256 = std::string(64, 'a');
    ranges.tokens = 1;
    ranges.vectors_sha256 = vectors_digest(config, [&](const TensorSpec& spec) {
      std::vector<std::byte> bytes(reader.value().block_bytes(spec, 1));
      reader.value().read_block(spec, 0, 1, bytes);
      return bytes;
    });
    ranges.layers.resize(static_cast<size_t>(config.num_layers));
    for (auto& layer : ranges.layers) {
      for (size_t matrix = 0; matrix < layer.size(); ++matrix) {
        for (int64_t j = 0; j < inputs_of(config, matrix); ++j) {
          layer[matrix].largest.push_back(0.25f * static_cast<float>(1 + j % 7));
        }
        layer[matrix].highest = *std::ranges::max_element(layer[matrix].largest);
      }
    }
    std::ofstream(folder / "ranges", std::ios::binary) << ranges_file(ranges);
    ConvertOptions options;
    options.input = folder / "foreign";
    options.output = folder / "smoothed";
    options.smooth_ranges = folder / "ranges";
    options.smooth_alpha = 0.7;
    const auto result = convert(options, SystemClock());
    ASSERT_TRUE(result.ok()) << result.refusal().message;
    EXPECT_THAT(result.value().warnings, Contains(HasSubstr("attention.qkv and ffn.up are not smoothed")));
    const auto report = verify(options);
    ASSERT_TRUE(report.ok()) << report.refusal().message;
    EXPECT_THAT(report.value().faults(), IsEmpty());
    EXPECT_LT(report.value().logits.largest, 1e-4);
    EXPECT_GT(report.value().logits.largest, 0);
    return;
  }
  FAIL() << "no such model";
}

}  // namespace smoothing_test
}  // namespace optserve::converter

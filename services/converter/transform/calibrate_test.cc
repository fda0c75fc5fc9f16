// Ranges of the demo model: the same for every shard count and run, and those that the walk shows.
#include "converter/transform/calibrate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "backend/cpu/cpu_backend.h"
#include "checkpoint/reader.h"
#include "engine/layer_walk.h"
#include "support/demo_model.h"
#include "support/sanitized.h"
#include "support/temporary_folder.h"
#include "tokenizer/bpe.h"
#include "tokenizer/encoder.h"

namespace optserve::converter {
namespace calibrate_test {

using test_support::convert_demo_model;
using test_support::kSanitized;
using ::testing::HasSubstr;

constexpr int64_t kSomeTokens = kSanitized ? 60 : 700;

std::string some_text() { return test_support::read_file(test_support::demo_file("heldout.txt")).substr(0, 8192); }

std::string ranges_of(const std::string& checkpoint, int64_t tokens = kSomeTokens) {
  const auto ranges = calibrate({.checkpoint = checkpoint, .text = some_text(), .tokens = tokens});
  EXPECT_TRUE(ranges.ok()) << ranges.refusal().message;
  return ranges.ok() ? ranges_file(ranges.value()) : "";
}

std::string refusal_of(const CalibrateOptions& options) {
  const auto ranges = calibrate(options);
  return ranges.ok() ? "accepted" : ranges.refusal().message;
}

TEST(Calibrate, GivesTheSameBytesForEveryRunAndShardCount) {
  const test_support::TemporaryFolder folder;
  convert_demo_model(folder / "one", 1);
  convert_demo_model(folder / "two", 2);
  const std::string file = ranges_of(folder / "one");
  EXPECT_EQ(ranges_of(folder / "one"), file);
  EXPECT_EQ(ranges_of(folder / "two"), file);
  EXPECT_NE(ranges_of(folder / "one", kSomeTokens - 1), file);
}

std::vector<TokenId> ids_of(const std::string& text) {
  const auto bpe =
      tokenizer::Bpe::load(test_support::demo_file("gpt2-vocab.json"), test_support::demo_file("gpt2-merges.txt"));
  std::vector<TokenId> ids;
  EXPECT_TRUE(tokenizer::Encoder(bpe.value()).encode(text, ids).ok());
  return ids;
}

// Several windows: for each matrix, the maxima over everything that a walk through the model shows.
TEST(Calibrate, MeasuresTheInputsOfEachMatrix) {
  const test_support::TemporaryFolder folder;
  convert_demo_model(folder / "demo", 2);
  constexpr int64_t kFullWindows = kSanitized ? 1 : 2;
  constexpr int64_t kTokens = kFullWindows * (kCalibrationWindow - 1) + 20;
  const auto ranges = calibrate({.checkpoint = folder / "demo", .text = some_text(), .tokens = kTokens});
  ASSERT_TRUE(ranges.ok()) << ranges.refusal().message;
  EXPECT_EQ(ranges.value().tokens, static_cast<uint64_t>(kTokens));

  const std::vector<TokenId> ids = ids_of(some_text());
  std::vector<std::vector<TokenId>> windows;
  for (size_t begin = 0; begin < static_cast<size_t>(kTokens); begin += kCalibrationWindow - 1) {
    windows.push_back({2});
    for (size_t i = begin; i < std::min<size_t>(begin + kCalibrationWindow - 1, kTokens); ++i) {
      windows.back().push_back(ids[i]);
    }
  }
  ASSERT_EQ(std::ssize(windows), kFullWindows + 1);
  const auto reader = checkpoint::CheckpointReader::open(folder / "demo");
  const auto source = engine::make_checkpoint_source(reader.value());
  backend::CpuBackend backend({});
  engine::LayerWalk walk(*source, backend, windows);
  while (!walk.at_end()) {
    const auto& layer = ranges.value().layers.at(static_cast<size_t>(walk.layer()));
    std::array<std::vector<float>, 4> largest;
    walk.next_layer([&](engine::LayerInput input, const Tensor& x) {
      std::vector<float>& channels = largest[static_cast<size_t>(input)];
      channels.resize(static_cast<size_t>(x.dim(1)));
      for (int64_t row = 0; row < x.dim(0); ++row) {
        for (size_t i = 0; i < channels.size(); ++i) {
          channels[i] = std::max(channels[i], std::abs(x.row<float>(row)[i]));
        }
      }
    });
    for (size_t matrix = 0; matrix < largest.size(); ++matrix) {
      EXPECT_EQ(layer[matrix].largest, largest[matrix]) << "layer " << walk.layer() - 1 << ", matrix " << matrix;
    }
    EXPECT_EQ(layer[kDownMatrix].lowest, 0) << "what follows relu";
    EXPECT_LT(layer[kQkvMatrix].lowest, 0);
  }
}

// The digest depends on the model, not on how it is stored.
TEST(Calibrate, TheIdentityIsThatOfTheModel) {
  const test_support::TemporaryFolder folder;
  convert_demo_model(folder / "plain", 1);
  convert_demo_model(folder / "int8", 2, "int8");
  const auto identity = [&](const std::string& name) {
    return calibrate({.checkpoint = folder / name, .text = "a tree"}).value().vectors_sha256;
  };
  EXPECT_EQ(identity("plain"), identity("int8"));
  convert_demo_model(folder / "bf16", 1, "none", DType::kBF16);
  EXPECT_NE(identity("plain"), identity("bf16")) << "rounded otherwise; the file says to which type";
}

TEST(Calibrate, RefusesWhatItCannotRun) {
  const test_support::TemporaryFolder folder;
  convert_demo_model(folder / "demo", 2);
  EXPECT_THAT(refusal_of({.checkpoint = folder / "nothing", .text = "a"}), HasSubstr("found nothing"));
  EXPECT_THAT(refusal_of({.checkpoint = folder / "demo", .text = ""}), HasSubstr("the text is empty"));
  EXPECT_THAT(refusal_of({.checkpoint = folder / "demo", .text = "caf\xc3"}), HasSubstr("UTF-8"));
  EXPECT_THAT(refusal_of({.checkpoint = folder / "demo", .text = "a", .tokens = 0}), HasSubstr("at least 1"));
  EXPECT_THAT(refusal_of({.checkpoint = folder / "demo", .text = "a", .goes_on = [] { return false; }}),
              HasSubstr("cancelled"));
}

}  // namespace calibrate_test
}  // namespace optserve::converter

// Files of ranges survive the round trip, and other files are refused with the reason.
#include "converter/transform/activation_ranges.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "checkpoint/safetensors/safetensors.h"

namespace optserve::converter {
namespace activation_ranges_test {

using ::testing::HasSubstr;

model_spec::OptConfig config() {
  model_spec::OptConfig config;
  config.num_layers = 2;
  config.hidden = 2;
  config.ffn = 3;
  return config;
}

ActivationRanges example() {
  ActivationRanges ranges;
  ranges.model = "tiny";
  ranges.dtype = DType::kF16;
  ranges.vectors_sha256 = std::string(64, 'a');
  ranges.text_sha256 = std::string(64, 'b');
  ranges.tokens = 12;
  for (int layer = 0; layer < 2; ++layer) {
    auto& found = ranges.layers.emplace_back();
    for (size_t matrix = 0; matrix < found.size(); ++matrix) {
      found[matrix].largest = {0, 2.5f};
      if (matrix == kDownMatrix) found[matrix].largest.push_back(1);
      found[matrix].lowest = -2.5f;
      found[matrix].highest = static_cast<float>(layer);
    }
  }
  return ranges;
}

std::string fault(const std::string& file, const model_spec::OptConfig& of = config()) {
  const auto ranges = parse_ranges(checkpoint::MemorySource(std::as_bytes(std::span(file)), "ranges.safetensors"), of);
  return ranges.ok() ? "accepted" : ranges.refusal().message;
}

std::string with(const std::function<void(ActivationRanges&)>& change) {
  ActivationRanges ranges = example();
  change(ranges);
  return fault(ranges_file(ranges));
}

TEST(ActivationRanges, RoundTrip) {
  const std::string file = ranges_file(example());
  const auto back = parse_ranges(checkpoint::MemorySource(std::as_bytes(std::span(file))), config());
  ASSERT_TRUE(back.ok()) << back.refusal().message;
  EXPECT_EQ(ranges_file(back.value()), file);
  EXPECT_EQ(back.value().tokens, 12u);
  EXPECT_EQ(back.value().layers[1][kDownMatrix].largest, (std::vector<float>{0, 2.5f, 1}));
  EXPECT_EQ(back.value().layers[1][kDownMatrix].highest, 1);
}

TEST(ActivationRanges, RefusesWhatIsWrongAndNamesIt) {
  EXPECT_EQ(with([](ActivationRanges&) {}), "accepted");
  EXPECT_THAT(with([](ActivationRanges& r) { r.tokens = 0; }), HasSubstr("tokens must be"));
  EXPECT_THAT(with([](ActivationRanges& r) { r.model.clear(); }), HasSubstr("no name"));
  EXPECT_THAT(with([](ActivationRanges& r) { r.dtype = DType::kI8; }), HasSubstr("dtype must be"));
  EXPECT_THAT(with([](ActivationRanges& r) { r.text_sha256 = "beef"; }), HasSubstr("64 lower-case hex digits"));
  EXPECT_THAT(with([](ActivationRanges& r) { r.layers.pop_back(); }), HasSubstr("has 8 tensors, expected 16"));
  const auto contradicts = HasSubstr("layers.1.ffn.up: its ranges are not finite or contradict");
  for (const float value : {-1.0f, NAN, HUGE_VALF, 3.0f}) {
    EXPECT_THAT(with([&](ActivationRanges& r) { r.layers[1][kUpMatrix].largest[0] = value; }), contradicts) << value;
  }
  EXPECT_THAT(with([](ActivationRanges& r) { r.layers[1][kUpMatrix].lowest = 2; }), contradicts);
  EXPECT_THAT(with([](ActivationRanges& r) { r.layers[1][kUpMatrix].highest = NAN; }), contradicts);
}

TEST(ActivationRanges, RefusesFilesOfOtherModelsAndKinds) {
  const std::string file = ranges_file(example());
  model_spec::OptConfig wider = config();
  wider.hidden = 4;
  EXPECT_THAT(fault(file, wider), HasSubstr("layers.0.attention.qkv.input_largest is F32[2], expected F32[4]"));
  EXPECT_THAT(fault("not a file at all"), HasSubstr("ranges.safetensors"));
  std::vector<checkpoint::StoredTensor> none;
  EXPECT_THAT(fault(checkpoint::safetensors_header(none, {})), HasSubstr("expected ranges of 'optserve calibrate'"));
  EXPECT_NE(fault(file.substr(0, file.size() - 1)), "accepted");
}

}  // namespace activation_ranges_test
}  // namespace optserve::converter

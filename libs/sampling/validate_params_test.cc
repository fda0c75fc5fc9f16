#include "sampling/validate_params.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/limits.h"
#include "sampling/sample_row.h"

namespace optserve::sampling {
namespace validate_params_test {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct FieldRange {
  std::string_view name;
  double min, max;
  bool min_allowed;
};

// All but flags and seeds, which may have any value.
constexpr FieldRange kFields[] = {
    {"temperature", 0, 2, true},
    {"top_k", 0, limits::kVocabularyMax, true},
    {"top_p", 0, 1, false},
    {"min_p", 0, 1, true},
    {"typical_p", 0, 1, false},
    {"top_p_decay", 0, 1, false},
    {"top_p_min", 0, 1, true},
    {"top_p_decay_after", 0, limits::kContextTokensMax, true},
    {"repetition_penalty", 0, 10, false},
    {"presence_penalty", -2, 2, true},
    {"frequency_penalty", -2, 2, true},
    {"prompt_presence_penalty", -2, 2, true},
    {"prompt_frequency_penalty", -2, 2, true},
    {"min_new_tokens", 0, limits::kContextTokensMax, true},
    {"logprobs", -1, limits::kTopLogprobsMax, true},
    {"beam_width", 1, limits::kBeamWidthMax, true},
    {"beam_length_penalty", -10, 10, true},
    {"beam_early_stopping", 0, 2, true},
    {"beam_diversity", 0, 100, true},
    {"profile", 0, 2, true},
};

// Parameters with only the named field changed; and whether there is such a field, and of what kind.
struct Changed {
  SamplingParams params;
  bool found = false, fractional = false;
};
Changed with(std::string_view name, double value) {
  Changed out;
  for_each_parameter(out.params, [&]<class T>(const ParameterInfo& info, T& field) {
    if (name != info.name) return;
    field = static_cast<T>(static_cast<std::conditional_t<std::is_enum_v<T>, int, T>>(value));
    out.found = true;
    out.fractional = std::is_floating_point_v<T>;
  });
  return out;
}

TEST(SamplingParams, DefaultsAreValid) { EXPECT_TRUE(validate({}).ok()); }

TEST(SamplingParams, EveryFieldHoldsItsRange) {
  size_t fields = 0;
  SamplingParams all;
  for_each_parameter(all, [&](const ParameterInfo&, auto&) { ++fields; });
  EXPECT_EQ(fields, std::size(kFields) + 2);
  for (const FieldRange& field : kFields) {
    std::vector<std::pair<double, bool>> values{{field.min - 1, false},
                                                {field.min, field.min_allowed},
                                                {field.max, true},
                                                {field.max + 1, false},
                                                {std::ceil((field.min + field.max) / 2), true}};
    if (with(field.name, 0).fractional) {
      values.insert(values.end(), {{kNan, false}, {kInfinity, false}, {-kInfinity, false}, {field.max * 1.001, false}});
    }
    for (const auto& [value, expected] : values) {
      const Changed changed = with(field.name, value);
      ASSERT_TRUE(changed.found) << field.name;
      const Status status = validate(changed.params);
      EXPECT_EQ(status.ok(), expected) << field.name << " = " << value;
      if (!status.ok()) {
        EXPECT_EQ(status.refusal().code, ErrorCode::kBadRequest);
        EXPECT_NE(status.refusal().message.find(field.name), std::string::npos) << status.refusal().message;
      }
    }
  }
}

// The parts of the chain for which a batch is prepared: everything that any of its rows needs.
TEST(SampleFeatures, NameTheStepsThatARowNeeds) {
  const auto features = [](SamplingParams params, bool rules = false) { return sample_features(params, rules); };
  EXPECT_EQ(features({.temperature = 0}), 0u);
  EXPECT_EQ(features({.top_k = 1}), 0u);
  EXPECT_EQ(features({}), kSampleDraw);
  EXPECT_EQ(features({.temperature = 0}, true), kSampleRules);
  EXPECT_EQ(features({.temperature = 0, .logprobs = 0}), 0u);
  EXPECT_EQ(features({.temperature = 0, .logprobs = 1}), kSampleLogprobs);
  for (const auto& [name, value] : std::initializer_list<std::pair<const char*, double>>{
           {"top_k", 2}, {"top_p", 0.9}, {"min_p", 0.1}, {"top_p_decay", 0.9}}) {
    EXPECT_EQ(features(with(name, value).params), kSampleDraw | kSampleTruncate) << name;
  }
  EXPECT_EQ(features({.typical_p = 0.9f}), kSampleDraw | kSampleTruncate | kSampleTypical);
  for (const char* name : {"repetition_penalty", "presence_penalty", "frequency_penalty", "prompt_presence_penalty",
                           "prompt_frequency_penalty", "profile"}) {
    EXPECT_EQ(features(with(name, 2).params), kSampleDraw | kSamplePenalties) << name;
  }
}

TEST(SamplingParams, RefusalNamesRangeAndValue) {
  EXPECT_EQ(validate({.temperature = 2.5f}).refusal().message, "temperature is 2.5, expected 0 to 2");
  EXPECT_EQ(validate({.top_p = 0}).refusal().message, "top_p is 0, expected more than 0, at most 1");
}

// The options that a beam search allows besides its own; all others concern drawing and are refused.
TEST(SamplingParams, ABeamSearchRefusesEveryOptionThatDraws) {
  const std::set<std::string_view> allowed{"repetition_penalty",
                                           "presence_penalty",
                                           "frequency_penalty",
                                           "prompt_presence_penalty",
                                           "prompt_frequency_penalty",
                                           "min_new_tokens",
                                           "ignore_eos",
                                           "seed",
                                           "beam_width",
                                           "beam_length_penalty",
                                           "beam_early_stopping",
                                           "beam_diversity"};
  size_t refused = 0;
  for_each_field([&](const ParameterInfo& info, auto field) {
    SamplingParams params{.beam_width = 4};
    using Value = std::remove_reference_t<decltype(params.*field)>;
    const int middle = info.max > 1 ? static_cast<int>(std::ceil((info.min + info.max) / 2)) : 0;
    params.*field = std::is_floating_point_v<Value> ? static_cast<Value>(middle + 0.5) : static_cast<Value>(middle + 1);
    ASSERT_NE(params.*field, SamplingParams{}.*field) << info.name;
    const Status status = validate(params);
    EXPECT_EQ(status.ok(), allowed.contains(info.name)) << info.name;
    if (status.ok()) return;
    ++refused;
    EXPECT_NE(status.refusal().message.find(std::string(info.name) + " is "), std::string::npos)
        << status.refusal().message;
    EXPECT_NE(status.refusal().message.find("in a beam search"), std::string::npos) << status.refusal().message;
  });
  EXPECT_EQ(refused, 10u);
  EXPECT_TRUE(validate({.temperature = 0, .logprobs = 0, .beam_width = 4}).ok());
  EXPECT_EQ(validate({.temperature = 0.5f, .beam_width = 4}).refusal().message,
            "temperature is 0.5, expected 1 or 0 in a beam search");
  EXPECT_EQ(validate({.top_k = 5, .beam_width = 4}).refusal().message, "top_k is 5, expected 0 in a beam search");
}

TEST(SamplingParams, ANewOptionIsRefusedInABeamSearchUnlessTheTableAllowsIt) {
  constexpr ParameterInfo kNew{"new_option", 0, 1, false, "Does something with what is drawn"};
  EXPECT_EQ(kNew.with_beams, WithBeams::kRefused);
}

}  // namespace validate_params_test
}  // namespace optserve::sampling

#include "model_spec/opt_config.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace optserve::model_spec {
namespace opt_config_test {

OptConfig demo() {
  OptConfig config;
  config.name = "demo";
  config.num_layers = 8;
  config.hidden = config.embed_dim = 256;
  config.num_heads = 4;
  config.ffn = 1024;
  config.vocab = config.vocab_real = 4096;
  config.max_positions = 1024;
  return config;
}

TEST(OptConfig, PublishedParameterCounts) {
  const std::pair<const char*, int64_t> expected[] = {
      {"opt-125m", 125'239'296},   {"opt-350m", 331'196'416},   {"opt-1.3b", 1'315'758'080},
      {"opt-2.7b", 2'651'596'800}, {"opt-6.7b", 6'658'473'984}, {"opt-13b", 12'853'473'280},
      {"opt-30b", 29'974'540'288}, {"opt-66b", 65'719'701'504}, {"opt-175b", 174'604'468'224},
  };
  ASSERT_EQ(std::size(expected), published_configs().size());
  for (const auto& [name, count] : expected) {
    const OptConfig* config = find_published(name);
    ASSERT_NE(config, nullptr) << name;
    EXPECT_TRUE(validate(*config).ok()) << name;
    EXPECT_EQ(published_parameter_count(*config), count) << name;
    EXPECT_EQ(find_published(config->num_layers, config->hidden), config) << name;
  }
  EXPECT_EQ(find_published("opt-1t"), nullptr);
  EXPECT_EQ(published_parameter_count(demo()), 7'629'824);
}

TEST(OptConfig, HeadSizesAndLegalWorlds) {
  EXPECT_EQ(find_published("opt-2.7b")->head_dim(), 80);
  EXPECT_EQ(find_published("opt-66b")->head_dim(), 128);
  EXPECT_EQ(legal_worlds_text(*find_published("opt-125m")), "1, 2, 4");
  EXPECT_EQ(legal_worlds_text(*find_published("opt-350m")), "1, 2, 4, 8, 16");
  EXPECT_EQ(legal_worlds_text(*find_published("opt-13b")), "1, 2, 4, 8");
  EXPECT_EQ(legal_worlds_text(*find_published("opt-30b")), "1, 2, 4, 8");
  EXPECT_EQ(legal_worlds_text(*find_published("opt-66b")), "1, 2, 4, 8");
  EXPECT_EQ(legal_worlds_text(*find_published("opt-175b")), "1, 2, 4, 8, 16, 32");
  EXPECT_FALSE(is_legal_world(demo(), 0));
  EXPECT_FALSE(is_legal_world(demo(), 3));
  EXPECT_EQ(kv_bytes_per_token(*find_published("opt-175b"), 2), 4'718'592);
}

TEST(OptConfig, JsonRoundTrip) {
  for (const OptConfig& config : published_configs()) {
    const Result<OptConfig> back = config_from_json(nlohmann::json::parse(to_json(config).dump()));
    ASSERT_TRUE(back.ok()) << back.refusal().message;
    EXPECT_EQ(back.value(), config);
  }
}

// OPT itself needs none of these keys, so its manifests are the same as those of programs that do not know relatives.
TEST(OptConfig, JsonOfRelatives) {
  const std::string plain = to_json(demo()).dump();
  for (const char* key : {"final_norm", "leads_with_bos", "vocab_padding", "more_eos_ids"}) {
    EXPECT_EQ(plain.find(key), std::string::npos) << key;
  }
  OptConfig relative = demo();
  relative.activation = Activation::kGelu;
  relative.final_norm = false;
  relative.leads_with_bos = false;
  relative.vocab = 4104;
  relative.vocab_padding = 7;
  relative.more_eos_ids = {5, 4095};
  const nlohmann::json json = to_json(relative);
  const Result<OptConfig> back = config_from_json(json);
  ASSERT_TRUE(back.ok()) << back.refusal().message;
  EXPECT_EQ(back.value(), relative);
  EXPECT_FALSE(back.value().has_final_norm());
  EXPECT_EQ(back.value().vocab_stored(), 4097);
  const std::pair<const char*, nlohmann::json> wrong[] = {
      {"activation", "silu"},     {"final_norm", 0},         {"vocab_padding", 9},        {"vocab_padding", -1},
      {"more_eos_ids", {5, 5}},   {"more_eos_ids", {4096}},  {"more_eos_ids", {2}},       {"more_eos_ids", {-1}},
      {"more_eos_ids", {"</s>"}}, {"more_eos_ids", nullptr}, {"leads_with_bos", "false"}, {"norm_before", false}};
  for (const auto& [key, value] : wrong) {
    nlohmann::json changed = json;
    changed[key] = value;
    EXPECT_FALSE(config_from_json(changed).ok()) << key << " " << value;
  }
}

TEST(OptConfig, TablesArePaddedForAnyNumberOfRanks) {
  OptConfig config = demo();
  config.vocab = config.vocab_real = 4097;
  EXPECT_FALSE(is_legal_world(config, 4));
  const OptConfig padded = with_padded_vocab(config, 4);
  EXPECT_EQ(padded.vocab, 4100);
  EXPECT_EQ(padded.vocab_padding, 3);
  EXPECT_EQ(padded.vocab_real, 4097);
  EXPECT_TRUE(is_legal_world(padded, 4));
  EXPECT_EQ(with_padded_vocab(padded, 1), config) << "the padding is of the last call alone";
  EXPECT_EQ(with_padded_vocab(demo(), 8), demo());
}

TEST(OptConfig, JsonRefusesWhatItDoesNotKnow) {
  const nlohmann::json good = to_json(demo());
  for (const auto& [key, value] : good.items()) {
    nlohmann::json missing = good;
    missing.erase(key);
    const Result<OptConfig> result = config_from_json(missing);
    ASSERT_FALSE(result.ok()) << key;
    EXPECT_NE(result.refusal().message.find(key), std::string::npos) << result.refusal().message;
    nlohmann::json wrong = good;
    wrong[key] = nlohmann::json::array();
    EXPECT_FALSE(config_from_json(wrong).ok()) << key;
  }
  nlohmann::json extra = good;
  extra["alibi"] = true;
  EXPECT_FALSE(config_from_json(extra).ok());
  nlohmann::json huge = good;
  huge["hidden"] = 1ull << 63;
  EXPECT_FALSE(config_from_json(huge).ok());
  huge["hidden"] = 256.5;
  EXPECT_FALSE(config_from_json(huge).ok());
  EXPECT_FALSE(config_from_json(nlohmann::json::array()).ok());
}

TEST(OptConfig, ValidateNamesTheFault) {
  OptConfig config = demo();
  config.num_heads = 3;
  EXPECT_NE(validate(config).refusal().message.find("num_heads"), std::string::npos);
  config = demo();
  config.vocab_real = 5000;
  EXPECT_NE(validate(config).refusal().message.find("vocab_real is 5000"), std::string::npos);
  config = demo();
  config.eos_id = 4096;
  EXPECT_FALSE(validate(config).ok());
  config = demo();
  config.name = "a/b";
  EXPECT_FALSE(validate(config).ok());
  config = demo();
  config.num_layers = -1;
  EXPECT_FALSE(validate(config).ok());
}

}  // namespace opt_config_test
}  // namespace optserve::model_spec

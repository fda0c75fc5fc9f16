#include "checkpoint/manifest/manifest.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace optserve::checkpoint {
namespace manifest_test {

Manifest example() {
  Manifest manifest;
  manifest.config = *model_spec::find_published("opt-125m");
  manifest.shards = 2;
  manifest.vocab_file = kVocabName;
  manifest.merges_file = kMergesName;
  for (const char* name :
       {"shard-000-of-002.safetensors", "shard-001-of-002.safetensors", "gpt2-vocab.json", "gpt2-merges.txt"}) {
    manifest.files.push_back({name, 1000, std::string(64, 'a')});
  }
  manifest.source = {"metaseq", {{"part-0.pt", 5, ""}, {"part-1.pt", 6, std::string(64, 'b')}}};
  manifest.created_by = "optserve test";
  return manifest;
}

TEST(Manifest, RoundTrip) {
  const Manifest manifest = example();
  const Result<Manifest> back = parse_manifest(manifest_text(manifest));
  ASSERT_TRUE(back.ok()) << back.refusal().message;
  EXPECT_EQ(manifest_text(back.value()), manifest_text(manifest));
  EXPECT_EQ(back.value().config, manifest.config);
  EXPECT_EQ(back.value().files[1].name, "shard-001-of-002.safetensors");
}

TEST(Manifest, RoundTripWithoutTokenizer) {
  Manifest manifest = example();
  manifest.vocab_file.clear();
  manifest.merges_file.clear();
  manifest.files.resize(2);
  ASSERT_TRUE(parse_manifest(manifest_text(manifest)).ok());
}

// Every single change of a key must be refused and named.
TEST(Manifest, RefusesWhatIsMissingUnknownOrWrong) {
  using nlohmann::json;
  const json good = json::parse(manifest_text(example()));
  const auto fault = [](const json& value) {
    const Result<Manifest> result = parse_manifest(value.dump());
    return result.ok() ? std::string("accepted") : result.refusal().message;
  };
  EXPECT_EQ(fault(good), "accepted");
  for (const auto& [key, value] : good.items()) {
    json missing = good;
    missing.erase(key);
    EXPECT_NE(fault(missing).find(key), std::string::npos) << fault(missing);
    json wrong = good;
    wrong[key] = -7.5;
    EXPECT_NE(fault(wrong), "accepted") << key;
  }
  const auto with = [&](const char* pointer, const json& value) {
    json changed = good;
    changed[json::json_pointer(pointer)] = value;
    return fault(changed);
  };
  EXPECT_NE(with("/extra", 1).find("unknown key 'extra'"), std::string::npos);
  EXPECT_NE(with("/format_version", 2).find("format_version is 2, this build reads 1"), std::string::npos);
  EXPECT_NE(with("/dtype", "F64").find("F32, F16 or BF16"), std::string::npos);
  EXPECT_NE(with("/shards", 3).find("3 shards do not divide"), std::string::npos);
  EXPECT_NE(with("/shards", 4).find("expected 6"), std::string::npos);
  EXPECT_NE(with("/quantisation", "int8").find("key 'scales' is missing"), std::string::npos);
  EXPECT_NE(with("/scales", "max").find("unknown key 'scales'"), std::string::npos);
  EXPECT_NE(with("/files/0/name", "../x").find("not a valid name"), std::string::npos);
  EXPECT_NE(with("/files/0/name", "shard-001-of-002.safetensors").find("expected 'shard-000"), std::string::npos);
  EXPECT_NE(with("/files/0/sha256", "aa").find("64"), std::string::npos);
  EXPECT_NE(with("/files/0/bytes", -1).find("bytes"), std::string::npos);
  EXPECT_NE(with("/tokenizer/vocab", "other.json").find("gpt2-vocab.json"), std::string::npos);
  EXPECT_NE(with("/config/hidden", 0).find("hidden"), std::string::npos);
  EXPECT_NE(fault(json::array()), "accepted");
}

TEST(Manifest, RoundTripOfEveryQuantisation) {
  using nlohmann::json;
  for (const char* name : {"int8", "int8-mse", "fp8", "int4"}) {
    Manifest manifest = example();
    manifest.quantisation = quant::find_quantisation(name);
    const std::string text = manifest_text(manifest);
    const Result<Manifest> back = parse_manifest(text);
    ASSERT_TRUE(back.ok()) << back.refusal().message;
    EXPECT_EQ(back.value().quantisation, manifest.quantisation);
    EXPECT_EQ(manifest_text(back.value()), text);
    // Older readers look for "none" here and nothing else.
    EXPECT_EQ(json::parse(text)["quantisation"], std::string(name).substr(0, std::string(name).find('-')));
    EXPECT_EQ(json::parse(text)["scales"], std::string_view(name) == "int8-mse" ? "mse" : "max");
  }
}

TEST(Manifest, RefusesQuantisationsThatDoNotExist) {
  Manifest manifest = example();
  manifest.quantisation = quant::find_quantisation("int4");
  const auto good = nlohmann::json::parse(manifest_text(manifest));
  const auto fault = [&](const char* key, const nlohmann::json& value) {
    nlohmann::json changed = good;
    changed[key] = value;
    const Result<Manifest> result = parse_manifest(changed.dump());
    return result.ok() ? std::string("accepted") : result.refusal().message;
  };
  for (const char* name : {"int8-mse", "fp16", "int5", "", "INT8"}) {
    EXPECT_NE(fault("quantisation", name).find("quantisation is"), std::string::npos) << name;
  }
  EXPECT_NE(fault("quantisation", 4).find("quantisation is 4"), std::string::npos);
  EXPECT_NE(fault("quantisation", "none").find("unknown key 'scales'"), std::string::npos);
  for (const char* scales : {"mse", "least", ""}) {
    EXPECT_NE(fault("scales", scales).find("quantisation is \"int4\""), std::string::npos) << scales;
  }
  // 768 inputs in four shards are one and a half groups each.
  EXPECT_NE(fault("shards", 4).find("shards is 4, the model allows 1, 2, 3, 6 in int4"), std::string::npos)
      << fault("shards", 4);
}

TEST(Manifest, TheSourceMayHaveBeenSmoothed) {
  using nlohmann::json;
  Manifest manifest = example();
  EXPECT_FALSE(json::parse(manifest_text(manifest))["source"].contains("smoothing"));
  EXPECT_FALSE(parse_manifest(manifest_text(manifest)).value().source.smoothing.has_value());
  for (const double alpha : {0.0, 0.1, 0.5, 1.0}) {
    manifest.source.smoothing = {alpha, std::string(64, 'c')};
    const std::string text = manifest_text(manifest);
    const Result<Manifest> back = parse_manifest(text);
    ASSERT_TRUE(back.ok()) << back.refusal().message;
    EXPECT_EQ(back.value().source.smoothing, manifest.source.smoothing);
    EXPECT_EQ(manifest_text(back.value()), text);
  }
  const json good = json::parse(manifest_text(manifest));
  const auto with = [&](const char* pointer, const json& value) {
    json changed = good;
    changed[json::json_pointer(pointer)] = value;
    const Result<Manifest> result = parse_manifest(changed.dump());
    return result.ok() ? std::string("accepted") : result.refusal().message;
  };
  EXPECT_EQ(with("/source/smoothing/alpha", 1), "accepted");
  for (const json& alpha : {json(-0.1), json(1.1), json("0.5"), json()}) {
    EXPECT_NE(with("/source/smoothing/alpha", alpha).find("'alpha' must be a number from 0 to 1"), std::string::npos);
  }
  EXPECT_NE(with("/source/smoothing/ranges_sha256", "abc").find("64 lower-case hex"), std::string::npos);
  EXPECT_NE(with("/source/smoothing/more", 1).find("unknown key 'more' in source.smoothing"), std::string::npos);
  EXPECT_NE(with("/source/smoothing", json::object()).find("'alpha' is missing"), std::string::npos);
  EXPECT_NE(with("/source/smoothing", nullptr).find("source.smoothing must be an object"), std::string::npos);
}

TEST(Manifest, RefusesDuplicateKeysAndRubbish) {
  std::string text = manifest_text(example());
  text.insert(text.find('{') + 1, "\"shards\": 2,");
  EXPECT_NE(parse_manifest(text).refusal().message.find("twice"), std::string::npos);
  EXPECT_FALSE(parse_manifest("").ok());
  EXPECT_FALSE(parse_manifest(manifest_text(example()) + "x").ok());
  EXPECT_FALSE(parse_manifest(std::string(100'000, '[')).ok());
}

}  // namespace manifest_test
}  // namespace optserve::checkpoint

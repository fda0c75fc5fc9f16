// The JSON files of a Hugging Face folder; whole folders are in convert_test.cc.
#include <gtest/gtest.h>

#include "converter/formats/huggingface_config.h"
#include "converter/formats/huggingface_files.h"
#include "converter/formats/infer_config.h"

namespace optserve::converter {
namespace huggingface_test {

std::string index_fault(std::string_view text) {
  const auto index = parse_huggingface_index(text, "index.json");
  return index.ok() ? "accepted" : index.refusal().message;
}

TEST(HuggingfaceIndex, NamesFilesOfTheFolderOnly) {
  const auto index =
      parse_huggingface_index(R"({"metadata": {"total_size": 1}, "weight_map": {"a": "model-1.safetensors"}})", "x");
  ASSERT_TRUE(index.ok()) << index.refusal().message;
  EXPECT_EQ(index.value(), (std::map<std::string, std::string>{{"a", "model-1.safetensors"}}));
  for (const char* name : {"../x", "/etc/passwd", "folder/model-1.safetensors", "..", ""}) {
    const std::string text = R"({"weight_map": {"a": ")" + std::string(name) + R"("}})";
    EXPECT_NE(index_fault(text).find("is in \"" + std::string(name) + "\", which is not a file"), std::string::npos)
        << index_fault(text);
  }
}

TEST(HuggingfaceIndex, RefusesOtherJson) {
  for (const char* text : {"[]", "{}", R"({"weight_map": []})", R"({"weight_map": "x"})", R"({"weight_map": {}})"}) {
    EXPECT_NE(index_fault(text).find("no object 'weight_map'"), std::string::npos) << text;
  }
  EXPECT_NE(index_fault(R"({"weight_map": {"a": 1}})").find("a is in 1"), std::string::npos);
  EXPECT_NE(index_fault("{").find("not valid JSON"), std::string::npos);
}

TEST(HuggingfaceConfig, GivesHints) {
  ForeignHints hints;
  const Status status = parse_huggingface_config(
      R"({"model_type": "opt", "num_attention_heads": 12, "do_layer_norm_before": false, "eos_token_id": 2,
          "hidden_size": 768, "vocab_size": 50272})",
      "config.json", hints);
  ASSERT_TRUE(status.ok()) << status.refusal().message;
  EXPECT_EQ(hints.num_heads, 12);
  EXPECT_EQ(hints.norm_before, false);
  EXPECT_EQ(hints.eos_ids, std::vector<int64_t>{2});
  ASSERT_EQ(hints.sizes.size(), 2u);
  EXPECT_EQ(hints.sizes[0].value, 768);
  EXPECT_EQ(hints.sizes[0].size, &model_spec::OptConfig::hidden);
  EXPECT_EQ(hints.sizes[1].key, "vocab_size");
  EXPECT_FALSE(parse_huggingface_config(R"({"model_type": "gpt2"})", "config.json", hints).ok());
  EXPECT_FALSE(parse_huggingface_config(R"({"model_type": {"opt": 1}})", "config.json", hints).ok());
}

class OneTensor final : public ForeignTensor {
 public:
  using ForeignTensor::ForeignTensor;
  void read_rows(int64_t, int64_t, std::span<std::byte>) const override {}
};

TEST(HuggingfaceConfig, MustAgreeWithTheTensors) {
  ForeignCheckpoint foreign;
  foreign.parts.emplace_back();
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    foreign.parts[0][name] = std::make_unique<OneTensor>(DType::kF16, std::move(shape));
  };
  add("decoder.embed_tokens.weight", {40, 16});
  add("decoder.embed_positions.weight", {8, 16});
  add("decoder.layers.0.fc1.weight", {32, 16});
  const Status status = parse_huggingface_config(
      R"({"model_type": "opt", "num_attention_heads": 4, "hidden_size": 16, "ffn_dim": 32, "vocab_size": 40,
          "num_hidden_layers": 1, "max_position_embeddings": 6, "word_embed_proj_dim": 16})",
      "config.json", foreign.hints);
  ASSERT_TRUE(status.ok()) << status.refusal().message;
  ASSERT_EQ(foreign.hints.sizes.size(), 6u);
  ASSERT_TRUE(infer_config(foreign, "m", 0).ok()) << infer_config(foreign, "m", 0).refusal().message;
  for (SizeClaim& claim : foreign.hints.sizes) {
    ++claim.value;
    const auto config = infer_config(foreign, "m", 0);
    ASSERT_FALSE(config.ok()) << claim.key;
    EXPECT_NE(config.refusal().message.find("config.json: " + claim.key + " is " + std::to_string(claim.value) +
                                            ", the tensors have " + std::to_string(claim.value - 1)),
              std::string::npos)
        << config.refusal().message;
    --claim.value;
  }
}

}  // namespace huggingface_test
}  // namespace optserve::converter

// The JSON files of a Hugging Face folder; whole folders are in convert_test.cc.
#include "converter/huggingface_source.h"

#include <gtest/gtest.h>

namespace optserve::converter {
namespace {

std::string index_fault(std::string_view text) {
  const Status status = check_huggingface_index(text, "index.json", {"folder/model-1.safetensors"});
  return status.ok() ? "accepted" : status.refusal().message;
}

TEST(HuggingfaceIndex, NamesFilesOfTheFolderOnly) {
  EXPECT_EQ(index_fault(R"({"metadata": {"total_size": 1}, "weight_map": {"a": "model-1.safetensors"}})"), "accepted");
  EXPECT_EQ(index_fault(R"({"weight_map": {}})"), "accepted");
  for (const char* name : {"../x", "/etc/passwd", "folder/model-1.safetensors", "model-2.safetensors", "..", ""}) {
    const std::string text = R"({"weight_map": {"a": ")" + std::string(name) + R"("}})";
    EXPECT_NE(index_fault(text).find("names the file '" + std::string(name) + "', which is missing"), std::string::npos)
        << index_fault(text);
  }
}

TEST(HuggingfaceIndex, RefusesOtherJson) {
  for (const char* text : {"[]", "{}", R"({"weight_map": []})", R"({"weight_map": "x"})"})
    EXPECT_NE(index_fault(text).find("no weight_map"), std::string::npos) << text;
  EXPECT_NE(index_fault(R"({"weight_map": {"a": 1}})").find("maps a to no file"), std::string::npos);
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
  EXPECT_EQ(hints.eos_id, 2);
  EXPECT_EQ(hints.stated_sizes, (std::map<std::string, int64_t>{{"hidden_size", 768}, {"vocab_size", 50272}}));
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
    foreign.parts[0][name] = std::make_unique<OneTensor>(tensor::DType::kF16, std::move(shape));
  };
  add("decoder.embed_tokens.weight", {40, 16});
  add("decoder.embed_positions.weight", {8, 16});
  add("decoder.layers.0.fc1.weight", {32, 16});
  foreign.hints.num_heads = 4;
  foreign.hints.stated_sizes = {{"hidden_size", 16},
                                {"ffn_dim", 32},
                                {"vocab_size", 40},
                                {"num_hidden_layers", 1},
                                {"max_position_embeddings", 6}};
  EXPECT_TRUE(infer_config(foreign, "m", 0).ok());
  for (auto& [name, size] : foreign.hints.stated_sizes) {
    ++size;
    const auto config = infer_config(foreign, "m", 0);
    ASSERT_FALSE(config.ok()) << name;
    EXPECT_NE(config.refusal().message.find("says that " + name + " is"), std::string::npos);
    --size;
  }
}

}  // namespace
}  // namespace optserve::converter

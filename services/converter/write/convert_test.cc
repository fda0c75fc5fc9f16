// One tiny model in every layout that Metaseq and Hugging Face write: all must give the same shards.
#include "converter/write/convert.h"

#include <gtest/gtest.h>

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
#include "tokenizer/small_vocabulary.h"

namespace optserve::converter {
namespace convert_test {

namespace fs = std::filesystem;
namespace op = checkpoint::testing::op;
using checkpoint::testing::PtBuilder;
using model_spec::OptConfig;
using model_spec::TensorSpec;

using Values = std::vector<uint16_t>;
struct Foreign {
  std::string name;
  std::vector<int64_t> shape;
  Values values;
};

std::string bytes_of(const Values& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(uint16_t)};
}

class Convert : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("optserve-convert-test-" + Id128::random().hex());
    fs::create_directory(root_);
    config_ = checkpoint::testing::tiny_config();
  }
  void TearDown() override { fs::remove_all(root_); }

  // A canonical tensor of finite halves that depend on its name only; positions have their two unused rows in front.
  Values canonical(const std::string& name, int64_t elements) const {
    std::mt19937 random(static_cast<unsigned>(std::hash<std::string>{}(name)));
    Values values(static_cast<size_t>(elements));
    for (uint16_t& value : values) value = static_cast<uint16_t>(random() & 0xbfff);
    return values;
  }

  // Rows and columns of a matrix, as Metaseq's parts hold them.
  static Values cut(const Values& all, int64_t cols, model_spec::RowRange rows, int64_t col, int64_t col_count) {
    Values out;
    for (int64_t r = rows.begin; r < rows.begin + rows.count; ++r) {
      for (int64_t c = col; c < col + col_count; ++c) out.push_back(all[static_cast<size_t>(r * cols + c)]);
    }
    return out;
  }

  // Part `part` of `parts` in Metaseq's names; `separate` gives q, k and v tensors of their own.
  std::vector<Foreign> part(int64_t part, int64_t parts, bool separate = false) const {
    std::vector<Foreign> out;
    for (const TensorSpec& spec : model_spec::opt_tensors(config_)) {
      const std::string name = metaseq_name(spec.name);
      std::vector<int64_t> shape = spec.shape();
      if (spec.name == "embed_positions.weight") {
        shape[0] += 2;
        Values values(static_cast<size_t>(2 * config_.hidden), 0x7e00);  // NaN: nobody may read the unused rows
        const Values rest = canonical(spec.name, spec.elements());
        values.insert(values.end(), rest.begin(), rest.end());
        out.push_back({name, shape, values});
        continue;
      }
      const Values all = canonical(spec.name, spec.elements());
      const model_spec::Block block = model_spec::block_of(spec, part, parts);
      if (spec.split != model_spec::Split::kQkvRows) {
        Values values;
        for (const auto& rows : block.rows) values = cut(all, spec.cols, rows, block.col_begin, block.cols);
        out.push_back({name, model_spec::block_shape(spec, parts), values});
        continue;
      }
      shape[0] /= 3 * parts;
      const size_t at = name.find("qkv_proj");
      Values fused;
      for (size_t group : {1u, 2u, 0u}) {  // Metaseq's order: k, v, q
        const Values values = cut(all, spec.cols, block.rows[group], 0, spec.cols);
        const std::string letter = std::string(1, "qkv"[group]);
        if (separate) out.push_back({std::string(name).replace(at, 8, letter + "_proj"), shape, values});
        fused.insert(fused.end(), values.begin(), values.end());
      }
      shape[0] *= 3;
      if (!separate) out.push_back({name, shape, fused});
    }
    return out;
  }

  std::string cfg() const {
    const auto number = [](int64_t value) { return op::integer(value); };
    return op::dict({{"model", op::name_space({{"decoder_layers", number(config_.num_layers)},
                                               {"decoder_attention_heads", number(config_.num_heads)},
                                               {"decoder_embed_dim", number(config_.hidden)},
                                               {"decoder_ffn_embed_dim", number(config_.ffn)},
                                               {"max_target_positions", number(config_.max_positions)},
                                               {"model_parallel_size", number(2)},
                                               {"activation_fn", op::text("relu")}})}});
  }

  void write(const std::string& name, const std::string& bytes) const {
    fs::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name, std::ios::binary) << bytes;
  }

  void write_parts(const std::string& folder, int64_t parts, bool separate = false) const {
    for (int64_t i = 0; i < parts; ++i) {
      PtBuilder builder;
      builder.add_top_level("cfg", cfg());
      for (const Foreign& tensor : part(i, parts, separate)) {
        builder.add_tensor(tensor.name, DType::kF16, tensor.shape, bytes_of(tensor.values));
      }
      builder.add_tensor("decoder.version", DType::kF32, {1}, std::string(4, '\0'));
      write(folder + "/reshard-model_part-" + std::to_string(i) + ".pt", builder.file());
    }
  }

  // Groups of tensors in the order in which FSDP flattens them.
  static std::vector<std::string> flat_order(const std::string& prefix) {
    if (prefix.empty()) {
      return {"decoder.embed_tokens.weight", "decoder.embed_positions.weight", "decoder.layer_norm.weight",
              "decoder.layer_norm.bias"};
    }
    std::vector<std::string> names;
    for (const char* leaf :
         {"self_attn.qkv_proj.", "self_attn.out_proj.", "self_attn_layer_norm.", "fc1.", "fc2.", "final_layer_norm."}) {
      for (const char* kind : {"weight", "bias"}) names.push_back(prefix + leaf + kind);
    }
    return names;
  }

  // One part flattened over `shards` files, as torch.chunk cuts it, with or without shard_metadata.
  void write_flat(const std::string& folder, int64_t part_index, int64_t parts, int64_t shards, bool metadata) const {
    std::map<std::string, Foreign> tensors;
    for (const Foreign& tensor : part(part_index, parts)) tensors[tensor.name] = tensor;
    std::vector<PtBuilder> files(static_cast<size_t>(shards));
    std::vector<std::string> param_metadata(files.size());
    for (const char* path : {"", "decoder.layers.0", "decoder.layers.1"}) {
      const std::string prefix = *path == 0 ? "" : std::string(path) + ".";
      Values flat;
      std::string names, shapes, numels;
      for (const std::string& name : flat_order(prefix)) {
        const Foreign& tensor = tensors.at(name);
        flat.insert(flat.end(), tensor.values.begin(), tensor.values.end());
        names += op::text(name.substr(prefix.size()));
        shapes += op::call(op::global("torch", "Size"), {op::numbers(tensor.shape)});
        numels += op::integer(static_cast<int64_t>(tensor.values.size()));
      }
      const size_t chunk = (flat.size() + files.size() - 1) / files.size();
      for (size_t k = 0; k < files.size(); ++k) {
        const size_t begin = std::min(k * chunk, flat.size());
        const size_t end = std::min(begin + chunk, flat.size());
        Values piece(flat.begin() + static_cast<long>(begin), flat.begin() + static_cast<long>(end));
        const size_t padding = chunk - piece.size();
        piece.resize(chunk, 0);
        files[k].add_tensor(prefix + "flat_param_0", DType::kF16, {static_cast<int64_t>(chunk)}, bytes_of(piece));
        const std::string group = op::dict({{"names", "](" + names + "e"},
                                            {"shapes", "](" + shapes + "e"},
                                            {"numels", "](" + numels + "e"},
                                            {"padding", op::integer(static_cast<int64_t>(padding))}});
        param_metadata[k] += op::dict({{"fsdp_path", op::text(path)}, {"params", op::dict({{"flat_param_0", group}})}});
      }
    }
    for (size_t k = 0; k < files.size(); ++k) {
      files[k].add_top_level("cfg", cfg());
      if (metadata) {
        files[k].add_top_level("shard_metadata", op::dict({{"param_metadata", "](" + param_metadata[k] + "e"}}));
      }
      write(folder + "/checkpoint_last-model_part-" + std::to_string(part_index) +
                (shards > 1 ? "-shard" + std::to_string(k) : "") + ".pt",
            files[k].file());
    }
  }

  std::string hf_config() const {
    return nlohmann::json({{"model_type", "opt"},
                           {"num_attention_heads", config_.num_heads},
                           {"do_layer_norm_before", config_.norm_before},
                           {"activation_function", "relu"},
                           {"eos_token_id", 2}})
        .dump();
  }

  static std::string hf_name(std::string name) {
    if (name.starts_with("decoder.layer_norm.")) name.replace(8, 10, "final_layer_norm");
    if (const size_t at = name.find("_in_dim"); at != std::string::npos) name.erase(at + 3, 4);
    if (const size_t at = name.find("_out_dim"); at != std::string::npos) name.erase(at + 4, 4);
    return "model." + name;
  }

  ConvertOptions options(const std::string& input, const std::string& output = "") const {
    ConvertOptions chosen;
    chosen.input = (root_ / input).string();
    chosen.output = (root_ / (output.empty() ? input + "-out" : output)).string();
    chosen.num_heads = 0;
    return chosen;
  }

  // Converts and returns the digests of the shards, in order.
  std::vector<std::string> digests(const std::string& input) const {
    const Result<ConvertResult> result = convert(options(input), SystemClock());
    if (!result.ok()) return {result.refusal().message};
    const auto reader = checkpoint::CheckpointReader::open((root_ / (input + "-out")).string());
    if (!reader.ok()) return {reader.refusal().message};
    std::vector<std::string> list;
    for (const auto& file : reader.value().manifest().files) list.push_back(file.sha256);
    return list;
  }

  std::string fault(const std::string& input) const {
    const Result<ConvertResult> result = convert(options(input), SystemClock());
    EXPECT_FALSE(fs::exists(root_ / (input + "-out"))) << "a refused conversion left something behind";
    return result.ok() ? "accepted" : result.refusal().message;
  }

  fs::path root_;
  model_spec::OptConfig config_;
};

TEST_F(Convert, EveryLayoutGivesTheSameShards) {
  write_parts("one", 1);
  const std::vector<std::string> expected = digests("one");
  ASSERT_EQ(expected.size(), 4u) << expected[0];
  for (int64_t parts : {2, 4}) {
    write_parts("parts" + std::to_string(parts), parts);
    EXPECT_EQ(digests("parts" + std::to_string(parts)), expected);
  }
  write_parts("separate", 2, true);
  EXPECT_EQ(digests("separate"), expected);
  for (int64_t part : {0, 1}) write_flat("flat", part, 2, 1, true);
  EXPECT_EQ(digests("flat"), expected);
  for (int64_t part : {0, 1}) write_flat("flat-bare", part, 2, 1, false);
  EXPECT_EQ(digests("flat-bare"), expected);
  for (int64_t part : {0, 1}) write_flat("fsdp", part, 2, 7, true);
  EXPECT_EQ(digests("fsdp"), expected);
  for (int64_t part : {0, 1, 2, 3}) write_flat("fsdp-bare", part, 4, 5, false);
  EXPECT_EQ(digests("fsdp-bare"), expected);
}

TEST_F(Convert, HuggingFaceFoldersGiveTheSameShards) {
  write_parts("one", 1);
  const std::vector<std::string> expected = digests("one");
  std::vector<checkpoint::StoredTensor> stored;
  std::string data;
  std::string pickled = op::kProto + op::kDict + op::kMark;
  PtBuilder storages;
  std::vector<checkpoint::testing::ZipMember> members = {{"pytorch_model/data.pkl", ""}};
  for (const Foreign& tensor : part(0, 1, true)) {
    stored.push_back({hf_name(tensor.name), DType::kF16, tensor.shape, 0, 0});
    data += bytes_of(tensor.values);
    const std::string key = std::to_string(members.size() - 1);
    std::vector<int64_t> stride(tensor.shape.size(), 1);
    if (stride.size() == 2) stride[0] = tensor.shape[1];
    pickled += op::text(hf_name(tensor.name)) +
               op::tensor(op::storage("HalfStorage", key, static_cast<int64_t>(tensor.values.size())), 0, tensor.shape,
                          stride);
    members.push_back({"pytorch_model/data/" + key, bytes_of(tensor.values)});
  }
  members[0].data = pickled + op::kSetItems + op::kStop;
  write("hf/config.json", hf_config());
  write("hf/model.safetensors", checkpoint::safetensors_header(stored, {{"format", "pt"}}) + data);
  EXPECT_EQ(digests("hf"), expected);
  write("hf-bin/config.json", hf_config());
  write("hf-bin/pytorch_model.bin", checkpoint::testing::zip_bytes(members));
  EXPECT_EQ(digests("hf-bin"), expected);
}

// Slices of all ranks of every group size rejoin to the source.
TEST_F(Convert, BlocksRejoinToTheSource) {
  write_parts("in", 2);
  ASSERT_EQ(digests("in").size(), 4u);
  const auto reader = checkpoint::CheckpointReader::open((root_ / "in-out").string());
  ASSERT_TRUE(reader.ok());
  for (int world : {1, 2, 4}) {
    for (const TensorSpec& spec : reader.value().tensors()) {
      const Values source = canonical(spec.name, spec.elements());
      Values joined(source.size());
      for (int rank = 0; rank < world; ++rank) {
        Values block(reader.value().block_bytes(spec, world) / 2);
        reader.value().read_block(spec, rank, world, std::as_writable_bytes(std::span(block)));
        const model_spec::Block where = model_spec::block_of(spec, rank, world);
        size_t at = 0;
        for (const auto& rows : where.rows) {
          for (int64_t r = rows.begin; r < rows.begin + rows.count; ++r) {
            for (int64_t c = where.col_begin; c < where.col_begin + where.cols; ++c) {
              joined[static_cast<size_t>(r * spec.cols + c)] = block[at++];
            }
          }
        }
      }
      ASSERT_EQ(joined, source) << spec.name << " at " << world;
    }
  }
}

TEST_F(Convert, PostNormWithProjections) {
  config_.norm_before = false;
  config_.embed_dim = 8;
  PtBuilder builder;
  for (const Foreign& tensor : part(0, 1, true)) {
    builder.add_tensor(tensor.name, DType::kF16, tensor.shape, bytes_of(tensor.values));
  }
  builder.add_top_level(
      "args", op::name_space({{"decoder_attention_heads", op::integer(4)}, {"decoder_normalize_before", "\x89"}}));
  write("in/reshard.pt", builder.file());
  const Result<ConvertResult> result = convert(options("in/reshard.pt", "out"), SystemClock());
  ASSERT_TRUE(result.ok()) << result.refusal().message;
  config_.name = "out";
  EXPECT_EQ(result.value().config, config_);
}

TEST_F(Convert, TypesOfTheOutput) {
  write_parts("in", 2);
  for (const auto& [dtype, name] : {std::pair{DType::kF32, "f32"}, {DType::kBF16, "bf16"}}) {
    ConvertOptions chosen = options("in", name);
    chosen.dtype = dtype;
    chosen.shards = 1;
    ASSERT_TRUE(convert(chosen, SystemClock()).ok());
    const auto reader = checkpoint::CheckpointReader::open(chosen.output);
    ASSERT_TRUE(reader.ok());
    for (const TensorSpec& spec : reader.value().tensors()) {
      std::vector<std::byte> raw(reader.value().block_bytes(spec, 1));
      reader.value().read_block(spec, 0, 1, raw);
      std::vector<float> found(static_cast<size_t>(spec.elements()));
      convert_to_f32(raw.data(), dtype, found.data(), found.size());
      const Values source = canonical(spec.name, spec.elements());
      for (size_t i = 0; i < source.size(); ++i) {
        const float value = half_to_float(source[i]);
        ASSERT_EQ(found[i], dtype == DType::kF32 ? value : bfloat_to_float(float_to_bfloat(value)));
      }
    }
  }
}

TEST_F(Convert, TiedAndUntiedOutput) {
  for (const bool tied : {true, false}) {
    PtBuilder builder;
    builder.add_top_level("cfg", cfg());
    for (const Foreign& tensor : part(0, 1)) {
      builder.add_tensor(tensor.name, DType::kF16, tensor.shape, bytes_of(tensor.values));
    }
    builder.add_tensor("decoder.output_projection.weight", DType::kF16, {40, 16},
                       bytes_of(canonical(tied ? "embed_tokens.weight" : "another", 640)));
    const std::string name = tied ? "tied" : "untied";
    write(name + "/x.pt", builder.file());
    const Result<ConvertResult> result = convert(options(name), SystemClock());
    ASSERT_TRUE(result.ok()) << result.refusal().message;
    EXPECT_EQ(result.value().config.tied_output, tied);
  }
}

TEST_F(Convert, NamesWhatIsMissingUnexpectedOrWrong) {
  PtBuilder builder;
  builder.add_top_level("cfg", cfg());
  for (const Foreign& tensor : part(0, 1)) {
    if (tensor.name == "decoder.layers.1.fc2.bias") continue;
    const bool is_wrong = tensor.name == "decoder.layers.0.self_attn.out_proj.weight";
    builder.add_tensor(tensor.name, DType::kF16, is_wrong ? std::vector<int64_t>{8, 32} : tensor.shape,
                       bytes_of(tensor.values));
  }
  builder.add_tensor("decoder.layers.0.ffn_layernorm.weight", DType::kF16, {1}, "ab");
  write("in/x.pt", builder.file());
  const std::string text = fault("in");
  EXPECT_NE(text.find("missing decoder.layers.1.fc2.bias [16]"), std::string::npos) << text;
  EXPECT_NE(text.find("out_proj.weight is F16[8, 32], expected [16, 16]"), std::string::npos) << text;
  EXPECT_NE(text.find("ffn_layernorm is not a feature of OPT"), std::string::npos) << text;
  const auto description = inspect((root_ / "in").string());
  ASSERT_TRUE(description.ok());
  EXPECT_NE(description.value()["problem"].get<std::string>().find("fc2.bias"), std::string::npos);
  EXPECT_FALSE(inspect_text(description.value(), true).empty());
}

TEST_F(Convert, RefusesOtherArchitectures) {
  for (const auto& [key, value] : {std::pair{"alibi", std::string("\x88")}, {"activation_fn", op::text("silu")}}) {
    PtBuilder builder;
    builder.add_top_level("cfg", op::dict({{"model", op::name_space({{key, value}})}}));
    builder.add_tensor("decoder.version", DType::kF32, {1}, "abcd");
    write("in/x.pt", builder.file());
    EXPECT_NE(fault("in").find(key), std::string::npos);
  }
}

TEST_F(Convert, RefusesCodeByName) {
  PtBuilder builder;
  builder.add_to_model("decoder.version", op::call(op::global("posix", "system"), {op::text("true")}));
  write("in/x.pt", builder.file());
  EXPECT_NE(fault("in").find("calls posix.system inside 'model' / 'decoder.version'"), std::string::npos);
  PtBuilder opaque;
  opaque.add_to_model("decoder.version", op::call(op::global("metaseq.x", "Thing"), {}));
  write("in/x.pt", opaque.file());
  EXPECT_NE(fault("in").find("which is not a tensor but metaseq.x.Thing"), std::string::npos) << fault("in");
}

TEST_F(Convert, RefusesIncompleteOrMixedSets) {
  write_parts("in", 4);
  fs::remove(root_ / "in/reshard-model_part-2.pt");
  EXPECT_NE(fault("in").find("expected part 2"), std::string::npos) << fault("in");
  write_parts("in", 4);
  write("in/other.pt", "x");
  EXPECT_NE(fault("in").find("several checkpoints"), std::string::npos) << fault("in");
  EXPECT_TRUE(convert(options("in/reshard.pt", "virtual-out"), SystemClock()).ok());
  EXPECT_TRUE(convert(options("in/reshard-model_part-*.pt", "glob-out"), SystemClock()).ok());
  EXPECT_TRUE(convert(options("in/reshard-model_part-1.pt", "sibling-out"), SystemClock()).ok());
  EXPECT_NE(fault("none").find("no such file"), std::string::npos);
  fs::create_directory(root_ / "empty");
  EXPECT_NE(fault("empty").find("found no files"), std::string::npos);
  write_parts("two", 2);
  fs::remove(root_ / "two/reshard-model_part-1.pt");
  EXPECT_NE(fault("two").find("decoder_ffn_embed_dim is 32, the tensors have 16"), std::string::npos) << fault("two");
  EXPECT_NE(fault("two").find("says 2 model-parallel parts, but 1 were found"), std::string::npos) << fault("two");
}

TEST_F(Convert, NanAndInfinityAreRefusedUnlessAllowed) {
  PtBuilder builder;
  builder.add_top_level("cfg", cfg());
  for (Foreign& tensor : part(0, 1)) {
    if (tensor.name == "decoder.layers.0.fc1.weight") tensor.values[5] = 0x7c00;
    if (tensor.name == "decoder.layers.1.fc1.bias") tensor.values[6] = 0xfe00;
    builder.add_tensor(tensor.name, DType::kF16, tensor.shape, bytes_of(tensor.values));
  }
  write("in/x.pt", builder.file());
  const std::string text = fault("in");
  EXPECT_NE(text.find("2 weights are NaN or infinite"), std::string::npos) << text;
  EXPECT_NE(text.find("layers.0.ffn.up.weight: 1 of 512"), std::string::npos) << text;
  ConvertOptions chosen = options("in");
  chosen.allow_nonfinite = true;
  const Result<ConvertResult> result = convert(chosen, SystemClock());
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result.value().nonfinite, 2u);
}

TEST_F(Convert, CancelLeavesNothing) {
  write_parts("in", 2);
  ConvertOptions chosen = options("in");
  uint64_t calls = 0;
  chosen.on_progress = [&](const ConvertProgress& at) {
    EXPECT_LE(at.bytes_done, at.bytes_total);
    return ++calls < 20;
  };
  const Result<ConvertResult> result = convert(chosen, SystemClock());
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.refusal().code, ErrorCode::kCancelled);
  EXPECT_EQ(std::distance(fs::directory_iterator(root_), {}), 1);
}

TEST_F(Convert, DamagedInputIsFound) {
  write_parts("in", 2);
  const fs::path file = root_ / "in/reshard-model_part-1.pt";
  std::ifstream stream(file, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(stream)), {});
  const std::string some = bytes_of(part(1, 2)[6].values);
  bytes[bytes.find(some) + 3] ^= 4;
  write("in/reshard-model_part-1.pt", bytes);
  EXPECT_NE(fault("in").find("is damaged (CRC-32 differs)"), std::string::npos) << fault("in");
}

TEST_F(Convert, OptionsThatCannotBe) {
  write_parts("in", 2);
  ConvertOptions chosen = options("in");
  chosen.shards = 3;
  EXPECT_NE(convert(chosen, SystemClock()).refusal().message.find("allows 1, 2, 4"), std::string::npos);
  chosen.shards = 0;
  chosen.num_heads = 3;
  EXPECT_NE(convert(chosen, SystemClock()).refusal().message.find("3 attention heads were asked for, but"),
            std::string::npos);
  chosen.num_heads = 0;
  chosen.vocab_file = "x";
  EXPECT_NE(convert(chosen, SystemClock()).refusal().message.find("both the vocabulary and the merges"),
            std::string::npos);
  const tokenizer::SmallVocabulary words({});
  write("v.json", words.json());
  write("m.txt", words.merges_text());
  chosen.vocab_file = (root_ / "v.json").string();
  chosen.merges_file = (root_ / "m.txt").string();
  EXPECT_NE(convert(chosen, SystemClock()).refusal().message.find("has 261 tokens, the model 40"), std::string::npos);
  write("v.json", R"({"a":0,"b":36})");
  EXPECT_NE(convert(chosen, SystemClock()).refusal().message.find("cannot be served"), std::string::npos);
  chosen.vocab_file = chosen.merges_file = "";
  const Result<ConvertResult> result = convert(chosen, SystemClock());
  ASSERT_TRUE(result.ok()) << result.refusal().message;
  EXPECT_FALSE(result.value().has_tokenizer);
  EXPECT_TRUE(convert(chosen, SystemClock()).value().existed);
  chosen.shards = 1;
  EXPECT_NE(convert(chosen, SystemClock()).refusal().message.find("exists already"), std::string::npos);
}

}  // namespace convert_test
}  // namespace optserve::converter

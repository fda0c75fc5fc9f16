// Verification of the demo model in every format; planted damage of each kind is caught and named.
#include "converter/verify/verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "base/hex.h"
#include "base/sha256.h"
#include "checkpoint/reader.h"
#include "support/demo_model.h"
#include "support/sanitized.h"
#include "support/temporary_folder.h"

namespace optserve::converter {
namespace verify_test {

using checkpoint::Manifest;
using checkpoint::StoredTensor;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::string read_file(const std::string& path) { return test_support::read_file(path); }
void write_file(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}

// Under a sanitizer this is slow, so only the formats that differ most are tried.
std::vector<const char*> formats() {
  if (test_support::kSanitized) return {"none", "int4"};
  return {"none", "int8", "int8-mse", "fp8", "int4"};
}

class Verify : public ::testing::Test {
 protected:
  // The demo model, converted to two shards.
  void convert_demo(const std::string& quantisation, std::optional<DType> dtype = {}) {
    options_.input = test_support::demo_file("");
    options_.output = folder_ / ("demo-" + quantisation);
    options_.shards = 2;
    options_.quantisation = quant::find_quantisation(quantisation);
    options_.dtype = dtype;
    std::filesystem::remove_all(options_.output);
    const auto result = convert(options_, SystemClock());
    ASSERT_TRUE(result.ok()) << result.refusal().message;
  }

  VerifyReport verified() const {
    const auto report = verify(options_);
    EXPECT_TRUE(report.ok()) << report.refusal().message;
    return report.ok() ? report.value() : VerifyReport{};
  }

  std::string shard_path(int shard) const {
    return options_.output + "/" + checkpoint::shard_file_name(shard, options_.shards);
  }
  StoredTensor find(int shard, const std::string& name) const {
    const auto file = checkpoint::InputFile::open(shard_path(shard));
    const auto header = checkpoint::read_safetensors(*file.value());
    return *header.value().find(name);
  }
  // Alters the bytes of a tensor.
  void damage(int shard, const std::string& name, const std::function<void(std::string&)>& change) const {
    const StoredTensor tensor = find(shard, name);
    std::string file = read_file(shard_path(shard));
    std::string bytes = file.substr(tensor.offset, tensor.bytes);
    change(bytes);
    write_file(shard_path(shard), file.replace(tensor.offset, tensor.bytes, bytes));
  }
  // Makes the manifest say what the shards now hold.
  void fix_digests() const {
    const std::string path = options_.output + "/manifest.json";
    Manifest manifest = checkpoint::parse_manifest(read_file(path)).value();
    for (int shard = 0; shard < options_.shards; ++shard) {
      manifest.files[static_cast<size_t>(shard)].sha256 = to_hex(sha256(read_file(shard_path(shard))));
    }
    write_file(path, checkpoint::manifest_text(manifest));
  }

  test_support::TemporaryFolder folder_;
  ConvertOptions options_;
};

TEST_F(Verify, PassesInEveryFormat) {
  for (const char* quantisation : formats()) {
    convert_demo(quantisation);
    const VerifyReport report = verified();
    EXPECT_THAT(report.faults(), IsEmpty()) << quantisation;
    EXPECT_TRUE(report.passed());
    EXPECT_EQ(report.files, 4u);
    EXPECT_EQ(report.weights.tensors, 100u);
    EXPECT_EQ(report.logits.rows, 16);
    std::printf("%-9s %s", quantisation, verify_text(report).c_str());
    if (std::string(quantisation) == "none") {
      EXPECT_EQ(report.weights.worst, 0);
      EXPECT_EQ(report.logits.largest, 0);
      EXPECT_EQ(report.logit_bound, 0);
      continue;
    }
    EXPECT_GT(report.weights.worst, 0.9);
    EXPECT_GT(report.logits.largest, 0);
    EXPECT_LT(report.computed.relative, report.logit_bound);
  }
}

TEST_F(Verify, PassesInOtherTypes) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    convert_demo("none", dtype);
    const VerifyReport report = verified();
    EXPECT_THAT(report.faults(), IsEmpty());
    EXPECT_EQ(report.computed.largest, 0) << "rounded as the checkpoint is";
    EXPECT_EQ(report.logits.largest == 0, dtype == DType::kF32) << "every half is a float";
  }
}

TEST_F(Verify, AFlippedByteIsFoundByDigestAndByWeight) {
  convert_demo("none");
  damage(1, "layers.3.ffn.up.weight", [](std::string& bytes) { bytes[1001] ^= 0x10; });
  const VerifyReport report = verified();
  EXPECT_FALSE(report.passed());
  EXPECT_THAT(report.file_faults, ElementsAre(HasSubstr("shard-001-of-002.safetensors: SHA-256 is ")));
  EXPECT_THAT(report.weights.faults,
              ElementsAre(AllOf(HasSubstr("layers.3.ffn.up.weight in shard-001-of-002.safetensors: 1 of "),
                                HasSubstr("the first at row "), HasSubstr(", column 244: "))));
}

// Exactly equal weights give exactly equal logits, so the prompt sees one flipped bit too.
TEST_F(Verify, AFlippedByteUnderAFreshDigestIsFound) {
  for (const char* quantisation : formats()) {
    convert_demo(quantisation);
    damage(0, "layers.7.attention.out.weight", [](std::string& bytes) { bytes[501] ^= 0x40; });
    fix_digests();
    const VerifyReport report = verified();
    EXPECT_THAT(report.file_faults, IsEmpty()) << quantisation;
    EXPECT_THAT(report.weights.faults,
                ElementsAre(HasSubstr("layers.7.attention.out.weight in shard-000-of-002.safetensors: 1 of ")))
        << quantisation;
    EXPECT_TRUE(options_.quantisation || !report.logit_faults.empty());
  }
}

// Tensors that every shard has in full are checked in every shard.
TEST_F(Verify, ACopyInTheLastShardIsFound) {
  convert_demo("int8");
  damage(1, "layers.2.ffn_norm.bias", [](std::string& bytes) { bytes[9] ^= 0x01; });
  damage(1, "layers.2.ffn.down.weight_scale", [](std::string& bytes) { bytes[2] ^= 0x20; });
  fix_digests();
  EXPECT_THAT(verified().faults(), ElementsAre(AllOf(HasSubstr("weights: layers.2.ffn_norm.bias in shard-001"),
                                                     HasSubstr("row 4, column 0")),
                                               HasSubstr("weights: layers.2.ffn.down.weight in shard-001")));
}

TEST_F(Verify, SwappedTensorsAreFound) {
  for (const char* quantisation : formats()) {
    convert_demo(quantisation);
    for (const int shard : {0, 1}) {
      const StoredTensor a = find(shard, "layers.1.attention.qkv.weight"),
                         b = find(shard, "layers.2.attention.qkv.weight");
      ASSERT_EQ(a.bytes, b.bytes);
      std::string file = read_file(shard_path(shard));
      std::swap_ranges(file.begin() + static_cast<long>(a.offset), file.begin() + static_cast<long>(a.offset + a.bytes),
                       file.begin() + static_cast<long>(b.offset));
      write_file(shard_path(shard), file);
    }
    fix_digests();
    const VerifyReport report = verified();
    EXPECT_THAT(report.file_faults, IsEmpty());
    EXPECT_THAT(report.weights.faults, SizeIs(4));
    EXPECT_THAT(report.weights.faults.front(), HasSubstr("layers.1.attention.qkv.weight in shard-000"));
    EXPECT_THAT(report.logit_faults, SizeIs(1)) << quantisation;
  }
}

TEST_F(Verify, AWrongScaleIsFoundAndNamed) {
  for (const char* quantisation : formats()) {
    if (std::string(quantisation) == "none") continue;
    convert_demo(quantisation);
    damage(0, "layers.0.ffn.up.weight_scale", [](std::string& bytes) {
      float scale;
      std::memcpy(&scale, bytes.data() + 12, sizeof scale);
      scale *= 1.5f;
      std::memcpy(bytes.data() + 12, &scale, sizeof scale);
    });
    fix_digests();
    EXPECT_THAT(verified().weights.faults, ElementsAre(AllOf(HasSubstr("layers.0.ffn.up.weight in shard-000"),
                                                             HasSubstr("its scale is "), HasSubstr("expected "))))
        << quantisation;
  }
}

TEST_F(Verify, RefusesWhatCannotBeCompared) {
  convert_demo("none");
  damage(0, "embed_tokens.weight", [](std::string& bytes) { bytes.pop_back(); });
  const auto cut = verify(options_);
  ASSERT_FALSE(cut.ok());
  EXPECT_THAT(cut.refusal().message, HasSubstr("shard-000-of-002.safetensors has "));
  convert_demo("none");
  options_.on_progress = [](const ConvertProgress&) { return false; };
  EXPECT_EQ(verify(options_).refusal().code, ErrorCode::kCancelled);
  options_.on_progress = {};
  options_.num_heads = 8;
  EXPECT_FALSE(verify(options_).ok()) << "the files say four heads";
}

TEST(GoldenPrompt, IsFixedAndInsideTheVocabulary) {
  model_spec::OptConfig config = *model_spec::find_published("opt-125m");
  const std::vector<TokenId> prompt = golden_prompt(config);
  EXPECT_EQ(prompt, golden_prompt(config));
  EXPECT_THAT(prompt, SizeIs(16));
  EXPECT_EQ(prompt.front(), config.bos_id);
  config.vocab_real = 5;
  config.max_positions = 3;
  EXPECT_THAT(golden_prompt(config), ElementsAre(2, 4, 4));
}

TEST(CompareLogits, SeesTheSmallestChangeAndWhatIsNoNumber) {
  const std::vector<float> wanted = {1, 2, 3, 4, 3, 2, NAN, 0};
  LogitDifference same = compare_logits(wanted, wanted, 4);
  EXPECT_EQ(same.relative, 0);
  EXPECT_EQ(same.largest, 0);
  EXPECT_EQ(same.rows, 2);
  EXPECT_EQ(same.same_best, 2);
  std::vector<float> found = wanted;
  found[0] = std::nextafter(1.0f, 2.0f);
  EXPECT_GT(compare_logits(wanted, found, 4).relative, logit_bound(true));
  EXPECT_LT(compare_logits(wanted, found, 4).relative, logit_bound(false));
  found[0] = NAN;
  EXPECT_EQ(compare_logits(wanted, found, 4).largest, HUGE_VAL);
  EXPECT_GT(compare_logits(wanted, found, 4).relative, logit_bound(false));
  found[0] = 10;
  EXPECT_EQ(compare_logits(wanted, found, 4).same_best, 1);
}

}  // namespace verify_test
}  // namespace optserve::converter

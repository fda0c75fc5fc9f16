#include "converter/reader/model_summary.h"

#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "model_spec/opt_tensors.h"

namespace optserve::converter {
namespace model_summary_test {

ModelSummary good_summary() {
  ModelSummary summary;
  summary.kind = "metaseq";
  summary.layout = "2 model-parallel parts";
  summary.files = {{"x-model_part-0.pt", 1000, std::string(64, 'a')}, {"x-model_part-1.pt", 1000, ""}};
  summary.warnings = {"trained with document separation"};
  summary.tensors = {{"decoder.version", DType::kI64, {1}, 1}};
  summary.config = *model_spec::find_published("opt-125m");
  summary.natural_dtype = DType::kF16;
  summary.dtypes.assign(model_spec::opt_tensors(*summary.config).size(), DType::kF16);
  summary.has_tokenizer = true;
  return summary;
}

Result<ModelSummary> decoded(const std::string& bytes) { return decode_summary(std::as_bytes(std::span(bytes))); }

// The converter's answer to a summary that a malicious reader has changed.
std::string fault(const std::function<void(ModelSummary&)>& change) {
  ModelSummary summary = good_summary();
  change(summary);
  const Result<std::string> bytes = encode_summary(summary, 1 << 20);
  if (!bytes.ok()) return "not encoded";
  const Result<ModelSummary> found = decoded(bytes.value());
  return found.ok() ? "accepted" : found.refusal().message;
}

TEST(ModelSummary, RoundTrips) {
  const ModelSummary summary = good_summary();
  const Result<ModelSummary> found = decoded(encode_summary(summary, 1 << 20).value());
  ASSERT_TRUE(found.ok()) << found.refusal().message;
  EXPECT_EQ(found.value().kind, summary.kind);
  EXPECT_EQ(found.value().layout, summary.layout);
  EXPECT_EQ(found.value().files.at(0).index_sha256, summary.files[0].index_sha256);
  EXPECT_EQ(found.value().files.at(1).bytes, 1000u);
  EXPECT_EQ(found.value().warnings, summary.warnings);
  EXPECT_EQ(found.value().tensors, summary.tensors);
  EXPECT_EQ(found.value().config, summary.config);
  EXPECT_EQ(found.value().dtypes, summary.dtypes);
  EXPECT_TRUE(found.value().has_tokenizer);
  ModelSummary broken = summary;
  broken.config.reset();
  broken.problem = "no heads";
  EXPECT_EQ(decoded(encode_summary(broken, 1 << 20).value()).value().problem, "no heads");
}

TEST(ModelSummary, RefusesWhatNoReaderSays) {
  using S = ModelSummary;
  EXPECT_NE(fault([](S& s) { s.kind.clear(); }).find("kind"), std::string::npos);
  EXPECT_NE(fault([](S& s) { s.files[0].name = "../x.pt"; }).find("folder"), std::string::npos);
  EXPECT_NE(fault([](S& s) { s.files[0].bytes = UINT64_MAX; }).find("size"), std::string::npos);
  EXPECT_NE(fault([](S& s) { s.files[0].index_sha256 = "<script>"; }).find("digest"), std::string::npos);
  EXPECT_NE(fault([](S& s) { s.tensors[0].shape = {INT64_MAX, 3}; }).find("shape"), std::string::npos);
  EXPECT_NE(fault([](S& s) { s.tensors[0].shape = {-1}; }).find("shape"), std::string::npos);
  EXPECT_NE(fault([](S& s) { s.config->num_layers = 1 << 30; }).find("num_layers"), std::string::npos);
  EXPECT_NE(fault([](S& s) { s.config->hidden = -768; }).find("hidden"), std::string::npos);
  EXPECT_NE(fault([](S& s) { s.config->num_heads = 0; }).find("num_heads"), std::string::npos);
  EXPECT_NE(fault([](S& s) { s.config->eos_id = -7; }).find("eos_id"), std::string::npos);
  EXPECT_NE(fault([](S& s) { s.config->name = "../../x"; }).find("name"), std::string::npos);
  EXPECT_NE(fault([](S& s) { s.config.reset(); }).find("neither a model nor"), std::string::npos);
  EXPECT_NE(fault([](S& s) { s.dtypes.pop_back(); }).find("number of tensors"), std::string::npos);
  EXPECT_NE(fault([](S& s) { s.dtypes[3] = DType::kI64; }).find("a type that weights cannot have"), std::string::npos);
  EXPECT_NE(fault([](S& s) { s.natural_dtype = DType::kF64; }).find("a type that weights cannot have"),
            std::string::npos);
  EXPECT_NE(fault([](S& s) { s.dtypes[0] = static_cast<DType>(77); }).find("unknown type"), std::string::npos);
  EXPECT_EQ(fault([](S& s) { s.files.resize(5000); }), "not encoded");
  EXPECT_EQ(fault([](S&) {}), "accepted");
}

TEST(ModelSummary, RefusesEveryCutAndEveryAddition) {
  const std::string bytes = encode_summary(good_summary(), 1 << 20).value();
  for (size_t length = 0; length < bytes.size(); ++length) EXPECT_FALSE(decoded(bytes.substr(0, length)).ok());
  EXPECT_FALSE(decoded(bytes + '\0').ok());
}

// A length field that promises more than there is must be refused before memory is allocated by it.
TEST(ModelSummary, RefusesLengthsBeyondTheBytes) {
  const std::string bytes = encode_summary(good_summary(), 1 << 20).value();
  for (size_t at = 0; at + 8 <= bytes.size(); ++at) {
    std::string changed = bytes;
    changed.replace(at, 8, 8, '\xff');
    decoded(changed).ok();
    changed.replace(at, 8, std::string("\0\0\0\0\1\0\0\0", 8));
    decoded(changed).ok();
  }
}

TEST(ModelSummary, SurvivesAnyBytes) {
  const std::string bytes = encode_summary(good_summary(), 1 << 20).value();
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int i = 0; i < 20'000; ++i) {
    std::string changed = bytes;
    for (int k = 0; k < 3; ++k) changed[random() % changed.size()] = static_cast<char>(random());
    const Result<ModelSummary> found = decoded(changed);
    if (!found.ok() || !found.value().problem.empty()) continue;
    ASSERT_TRUE(model_spec::validate(*found.value().config).ok());
    ASSERT_EQ(found.value().dtypes.size(), model_spec::opt_tensors(*found.value().config).size());
  }
}

TEST(PrintableText, LosesWhatTerminalsObey) {
  EXPECT_EQ(printable_text("a\x1b[2Jb\r\n", 100), "a?[2Jb?\n");
  EXPECT_EQ(printable_text("gr\xc3\xbc\xc3\x9f", 100), "gr\xc3\xbc\xc3\x9f");
  EXPECT_EQ(printable_text("\xc2\x9b"
                           "2J",
                           100),
            "??2J");
  EXPECT_EQ(printable_text("x\xff\xc3\xbc", 100), "x???");
  EXPECT_EQ(printable_text("ab\xc3\xbc", 3), "ab");
}

}  // namespace model_summary_test
}  // namespace optserve::converter

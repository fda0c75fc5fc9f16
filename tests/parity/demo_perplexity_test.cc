// Perplexity of the shipped model on text it never saw, tokenised by our own tokenizer: against its golden value, and
// of every quantised format and an int8 KV cache against fp16. The comparisons read every third window, which suffices
// to tell what a format loses.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <optional>

#include "converter/transform/calibrate.h"
#include "support/demo_model.h"
#include "support/engine_group.h"
#include "support/temporary_folder.h"
#include "tokenizer/bpe.h"
#include "tokenizer/encoder.h"

namespace optserve::test_support {
namespace demo_perplexity_test {

constexpr size_t kWindow = 511;  // scored tokens of a window, which begins with </s>
constexpr size_t kComparedEvery = 3;

std::vector<TokenId> heldout_ids() {
  const auto bpe =
      tokenizer::Bpe::parse(read_file(demo_file("gpt2-vocab.json")), read_file(demo_file("gpt2-merges.txt")));
  if (!bpe.ok()) throw Error(bpe.refusal().message);
  std::vector<TokenId> ids;
  const Status status = tokenizer::Encoder(bpe.value()).encode(read_file(demo_file("heldout.txt")), ids);
  if (!status.ok()) throw Error(status.refusal().message);
  return ids;
}

// Every `stride`-th window of the text.
std::vector<batching::SequenceRequest> windows(const std::vector<TokenId>& ids, size_t stride) {
  std::vector<batching::SequenceRequest> requests;
  for (size_t begin = 0; begin + kWindow <= ids.size(); begin += stride * kWindow) {
    batching::SequenceRequest& request = requests.emplace_back();
    request.tokens.push_back(2);
    request.tokens.insert(request.tokens.end(), ids.begin() + begin, ids.begin() + begin + kWindow);
    request.prompt_tokens = kWindow + 1;
    request.prompt_logprobs = true;
  }
  return requests;
}

struct Perplexity {
  double value = 0;
  int64_t scored = 0;
};

Perplexity perplexity_of(const std::string& checkpoint, const std::vector<TokenId>& ids, size_t stride,
                         std::optional<DType> kv_dtype = {}) {
  engine::EngineOptions options;
  options.kv_dtype = kv_dtype;
  options.checkpoint = checkpoint;
  options.num_blocks = 160;
  options.max_sequences = 4;
  options.max_step_tokens = 1024;
  Perplexity perplexity;
  run_engine_group({comm::RankKind::kThreads, 2}, options,
                   [&](engine::GroupLeader& leader, const engine::Engine& engine) {
                     double sum = 0;
                     for (const engine::Generation& window :
                          engine::generate_all(leader, planner_options(engine), windows(ids, stride))) {
                       for (const float logprob : window.prompt_logprobs) sum += logprob;
                       perplexity.scored += static_cast<int64_t>(window.prompt_logprobs.size());
                     }
                     perplexity.value = std::exp(-sum / static_cast<double>(perplexity.scored));
                   });
  return perplexity;
}

class DemoPerplexity : public testing::Test {
 protected:
  struct Bound {
    const char* quantisation;
    double factor;  // of the perplexity with fp16 weights
  };

  // The model with fp16 weights, with which all are compared.
  static const std::string& fp16_model() {
    static const TemporaryFolder folder;
    static const std::string model = [] {
      convert_demo_model(folder / "fp16", 2);
      return folder / "fp16";
    }();
    return model;
  }
  // Its perplexity in comparisons. It takes seconds, so it is computed once for all.
  static double fp16() {
    static const double found = perplexity_of(fp16_model(), heldout_ids(), kComparedEvery).value;
    return found;
  }
  // Converts the model with this quantisation and expects that it loses no more than the bound allows. Returns its
  // perplexity.
  double expect_within(const Bound& bound, double halves, const std::string& smooth_ranges = {}) {
    const std::string name = (smooth_ranges.empty() ? "" : "smoothed ") + std::string(bound.quantisation);
    convert_demo_model(folder_ / name, 2, bound.quantisation, DType::kF16, smooth_ranges);
    const double found = perplexity_of(folder_ / name, ids_, kComparedEvery).value;
    std::printf("%-20s %10.4f  factor %.5f\n", name.c_str(), found, found / halves);
    EXPECT_LE(found / halves, bound.factor) << name;
    return found;
  }

  const TemporaryFolder folder_;
  const std::vector<TokenId> ids_ = heldout_ids();
};

TEST_F(DemoPerplexity, OfHeldOutTextIsTheGoldenOne) {
  EXPECT_EQ(static_cast<int64_t>(ids_.size()), demo_goldens().heldout.tokens);
  const Perplexity found = perplexity_of(fp16_model(), ids_, 1);
  EXPECT_EQ(found.scored, demo_goldens().heldout.scored);
  EXPECT_NEAR(found.value, demo_goldens().heldout.perplexity, 0.001);
}

// docs/benchmarks/conversion.md has the table.
TEST_F(DemoPerplexity, OfQuantisedWeightsStaysNearThatOfHalves) {
  const double halves = fp16();
  for (const Bound& bound : {Bound{"int8", 1.001}, {"int8-mse", 1.001}, {"fp8", 1.005}, {"int4", 1.05}}) {
    EXPECT_NE(expect_within(bound, halves), halves) << bound.quantisation << " changed nothing";
  }
}

TEST_F(DemoPerplexity, OfAnInt8KvCacheStaysNearToo) {
  const double plain = fp16();
  const double found = perplexity_of(fp16_model(), ids_, kComparedEvery, DType::kI8).value;
  std::printf("int8 KV cache %10.4f  factor %.6f\n", found, found / plain);
  EXPECT_LE(found / plain, 1.001);
  EXPECT_NE(found, plain) << "int8 changed nothing";
}

// Smoothing moves magnitude from the inputs to the weights, and only weights are rounded here. So it costs a little,
// and no bound is tighter than the one for weights that are not smoothed.
TEST_F(DemoPerplexity, OfSmoothedWeightsStaysNearToo) {
  const double halves = fp16();
  const auto ranges = converter::calibrate({.checkpoint = fp16_model(), .text = read_file(demo_file("heldout.txt"))});
  ASSERT_TRUE(ranges.ok());
  std::ofstream(folder_ / "ranges", std::ios::binary) << converter::ranges_file(ranges.value());
  for (const Bound& bound : {Bound{"none", 1.0005}, {"int8", 1.001}, {"fp8", 1.005}, {"int4", 1.08}}) {
    expect_within(bound, halves, folder_ / "ranges");
  }
}

}  // namespace demo_perplexity_test
}  // namespace optserve::test_support

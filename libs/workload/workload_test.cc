#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "workload/bench_spec.h"
#include "workload/requests.h"

namespace optserve::workload {
namespace workload_test {

using ::testing::HasSubstr;

BenchSpec latency(std::vector<int32_t> batches) {
  BenchSpec spec;
  spec.batches = std::move(batches);
  return spec;
}

BenchSpec throughput(int32_t num_requests, bool mixed) {
  BenchSpec spec;
  spec.kind = BenchKind::kThroughput;
  spec.num_requests = num_requests;
  spec.mixed_lengths = mixed;
  spec.input_tokens = 200;
  spec.output_tokens = 180;
  return spec;
}

constexpr ModelBounds kBounds{2048, 50265};

TEST(BenchSpec, GoesThroughJson) {
  BenchSpec one = latency({1, 8, 1024});
  one.seed = UINT64_MAX;
  one.sampling.temperature = 0.5f;
  one.sampling.top_k = 7;
  for (const BenchSpec& spec : {one, throughput(1000, true), throughput(5, false)}) {
    const auto read = bench_spec_from_json(to_json(spec));
    ASSERT_TRUE(read.ok()) << read.refusal().message;
    EXPECT_EQ(read.value(), spec);
    EXPECT_EQ(read_bench_spec(to_json(spec).dump()).value(), spec);
  }
}

TEST(BenchSpec, IsGreedyAndIgnoresTheEndUnlessToldOtherwise) {
  const BenchSpec spec = read_bench_spec(R"({"batches": [1]})").value();
  EXPECT_TRUE(spec.sampling.is_greedy());
  EXPECT_TRUE(spec.sampling.ignore_eos);
  EXPECT_EQ(spec.input_tokens, 4);
  EXPECT_EQ(spec.output_tokens, 256);
}

TEST(BenchSpec, RefusalsNameTheField) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"batches": [1, 0]})", "batches is 0, expected 1 to 4096"},
      {R"({"batches": []})", "batches: expected at least one"},
      {R"({"batches": "1"})", "batches: expected a list of integers"},
      {R"({"batches": [1.5]})", "batches: expected an integer, found 1.5"},
      {R"({"batches": [99999999999]})", "batches: expected an integer"},
      {R"({"batches": [1], "output_tokens": 0})", "output_tokens is 0, expected 1 to 2048"},
      {R"({"batches": [1], "repeats": 0})", "repeats"},
      {R"({"batches": [1], "warmup": -1})", "warmup"},
      {R"({"batches": [1], "temperature": 9})", "temperature"},
      {R"({"batches": [1], "seed": -1})", "seed: expected an unsigned integer"},
      {R"({"batches": [1], "mixed_lengths": true})", "one length"},
      {R"({"batches": [1], "batch": 1})", "unknown key 'batch'"},
      {R"({"kind": "speed"})", "kind"},
      {R"({"kind": "throughput"})", "requests is 0, expected 1 to 100000"},
      {R"([1])", "expected a JSON object or a file"},
      {R"({"batches": )", "is not JSON"},
      {"no-such-file.json", "expected a JSON object or a file with one, found 'no-such-file.json'"},
  };
  for (const auto& [text, message] : cases) {
    const auto spec = read_bench_spec(text);
    ASSERT_FALSE(spec.ok()) << text;
    EXPECT_THAT(spec.refusal().message, HasSubstr(message)) << text;
  }
}

TEST(BenchSpec, EqualLengthsHaveToFitTheContext) {
  BenchSpec spec = latency({1});
  EXPECT_TRUE(check_context(spec, "demo", 260).ok());
  EXPECT_THAT(check_context(spec, "demo", 259).refusal().message,
              HasSubstr("prompts of 4 tokens and 256 new ones exceed the context of 259 tokens of model demo"));
  EXPECT_TRUE(check_context(throughput(10, true), "demo", 64).ok());  // mixed lengths are cut
}

TEST(BenchRequests, ABatchIsWhatThePageDescribes) {
  const auto requests = make_batch(latency({16}), 16, 0, kBounds);
  ASSERT_EQ(requests.size(), 16u);
  std::set<std::vector<TokenId>> prompts;
  for (const BenchRequest& request : requests) {
    ASSERT_EQ(request.prompt.size(), 4u);
    EXPECT_EQ(request.prompt.front(), 2);
    for (size_t i = 1; i < 4; ++i) EXPECT_TRUE(request.prompt[i] >= 4 && request.prompt[i] < kBounds.vocab);
    EXPECT_EQ(request.new_tokens, 256);
    prompts.insert(request.prompt);
  }
  EXPECT_EQ(prompts.size(), 16u);
}

TEST(BenchRequests, RunsDifferAndRepeatThemselvesExactly) {
  const BenchSpec spec = latency({4});
  EXPECT_EQ(make_batch(spec, 4, 1, kBounds)[0].prompt, make_batch(spec, 4, 1, kBounds)[0].prompt);
  EXPECT_NE(make_batch(spec, 4, 1, kBounds)[0].prompt, make_batch(spec, 4, 2, kBounds)[0].prompt);
  EXPECT_NE(make_batch(spec, 4, 1, kBounds)[0].prompt, make_batch(spec, 8, 1, kBounds)[0].prompt);
}

TEST(BenchRequests, RunsOfAThroughputBenchmarkHaveTheSameLengths) {
  const auto one = make_requests(throughput(50, true), 0, kBounds),
             other = make_requests(throughput(50, true), 1, kBounds);
  for (size_t i = 0; i < one.size(); ++i) {
    EXPECT_EQ(one[i].prompt.size(), other[i].prompt.size());
    EXPECT_EQ(one[i].new_tokens, other[i].new_tokens);
  }
  EXPECT_NE(one[0].prompt, other[0].prompt);
}

TEST(BenchRequests, MixedLengthsHaveTheirMeansAndFitTheContext) {
  double inputs = 0, outputs = 0;
  const auto requests = make_requests(throughput(20'000, true), 0, kBounds);
  for (const BenchRequest& request : requests) {
    const auto input = static_cast<int32_t>(request.prompt.size());
    ASSERT_GE(input, 1);
    ASSERT_GE(request.new_tokens, 1);
    ASSERT_LE(input + request.new_tokens, kBounds.context);
    inputs += input;
    outputs += request.new_tokens;
  }
  // Cutting to the context removes a few percent, from the log-normal's tail.
  EXPECT_NEAR(inputs / 20'000, 200, 12);
  EXPECT_NEAR(outputs / 20'000, 180, 12);
  for (const BenchRequest& request : make_requests(throughput(500, true), 0, {16, 50})) {
    EXPECT_LE(request.prompt.size() + static_cast<size_t>(request.new_tokens), 16u);
  }
}

// Results are compared across builds and years, so these ids must not change.
TEST(BenchRequests, AreTheSameInEveryBuild) {
  const auto mixed = make_requests(throughput(3, true), 0, kBounds);
  std::vector<int32_t> lengths;
  for (const BenchRequest& request : mixed) {
    lengths.push_back(static_cast<int32_t>(request.prompt.size()));
    lengths.push_back(request.new_tokens);
  }
  EXPECT_THAT(lengths, ::testing::ElementsAre(219, 87, 391, 31, 600, 61));
  EXPECT_THAT(make_batch(latency({1}), 1, 0, kBounds)[0].prompt, ::testing::ElementsAre(2, 40572, 2129, 8426));
}

}  // namespace workload_test
}  // namespace optserve::workload

#include <gtest/gtest.h>

#include <algorithm>

#include "backend/backend_fixture.h"
#include "sampling/logit_steps.h"

namespace optserve {
namespace {

constexpr int64_t kVocab = 515, kVocabReal = 500;

class SamplingTest : public BackendTest {
 protected:
  struct Drawn {
    std::vector<int32_t> ids;
    std::vector<float> logprobs;
  };
  Drawn draw(const Array& logits, const std::vector<SampleRow>& rows) {
    const auto n = static_cast<int64_t>(rows.size());
    const Array ids = ints(std::vector<int32_t>(rows.size(), -7), {n}), logprobs = poisoned_f32({n});
    backend_->sample(logits, {rows, kVocabReal, 2, 1}, ids, logprobs);
    return {ids.ints(), logprobs.values()};
  }
  Array logits(int64_t rows) { return array(normal(count({rows, kVocab}), 3), {rows, kVocab}, DType::kF32); }
  double logprob_oracle(const std::vector<float>& all, int64_t row, int64_t id) {
    const float* line = all.data() + row * kVocab;
    const double largest = static_cast<double>(*std::max_element(line, line + kVocabReal));
    double total = 0;
    for (int64_t i = 0; i < kVocabReal; ++i) total += std::exp(static_cast<double>(line[i]) - largest);
    return static_cast<double>(line[id]) - largest - std::log(total);
  }
};
INSTANTIATE_TEST_SUITE_P(Backends, SamplingTest, testing::ValuesIn(backends_under_test()), case_name);

TEST_P(SamplingTest, GreedyIsTheLargestRealLogit) {
  std::vector<float> values = normal(count({9, kVocab}), 3);
  for (size_t row = 0; row < 9; ++row) {
    values[row * kVocab + 507] = 100;  // padding of the table
    values[row * kVocab + 1] = 90;     // the pad token
  }
  const Array x = array(values, {9, kVocab}, DType::kF32);
  SampleRow row;
  row.params.temperature = 0;
  const Drawn drawn = draw(x, std::vector<SampleRow>(9, row));
  for (int64_t r = 0; r < 9; ++r) {
    std::vector<float> line(values.begin() + r * kVocab, values.begin() + r * kVocab + kVocabReal);
    line[1] = -1000;
    const int64_t expected = std::ranges::max_element(line) - line.begin();
    EXPECT_EQ(drawn.ids[static_cast<size_t>(r)], expected) << "seed " << seed_;
    EXPECT_NEAR(drawn.logprobs[static_cast<size_t>(r)], logprob_oracle(values, r, expected), 2e-5);
  }
}

TEST_P(SamplingTest, LogitsStayAsTheyAre) {
  const Array x = logits(2);
  const auto before = x.values();
  SampleRow row;
  row.params = {.temperature = 0.7f, .top_k = 20, .top_p = 0.9f, .repetition_penalty = 1.3f};
  const TokenId history[] = {4, 5, 6};
  row.history = history;
  draw(x, {row, row});
  EXPECT_EQ(x.values(), before);
}

TEST_P(SamplingTest, EqualsTheReferenceChainInAnyBatch) {
  constexpr int64_t kRows = 40;
  const Array x = logits(kRows);
  const auto values = x.values();
  std::vector<std::vector<TokenId>> histories(kRows);
  std::vector<SampleRow> rows(kRows);
  for (size_t i = 0; i < kRows; ++i) {
    for (int64_t n = pick(0, 30); n > 0; --n) histories[i].push_back(static_cast<TokenId>(pick(0, kVocabReal - 1)));
    rows[i].params = {.temperature = static_cast<float>(pick(0, 3)) * 0.5f,
                      .top_k = static_cast<int32_t>(pick(0, 3) * 20),
                      .top_p = static_cast<float>(pick(5, 10)) * 0.1f,
                      .repetition_penalty = static_cast<float>(pick(8, 14)) * 0.1f,
                      .presence_penalty = static_cast<float>(pick(-1, 1)),
                      .frequency_penalty = static_cast<float>(pick(-1, 1)) * 0.5f,
                      .seed = static_cast<uint64_t>(pick(0, 1 << 30))};
    rows[i].position = pick(0, 2000);
    rows[i].allow_eos = pick(0, 1) != 0;
    rows[i].history = histories[i];
    rows[i].prompt_tokens = static_cast<int64_t>(histories[i].size() / 2);
  }
  const Drawn together = draw(x, rows);
  SamplerScratch scratch(kVocabReal);
  for (size_t i = 0; i < kRows; ++i) {
    const auto row = static_cast<int64_t>(i);
    const DrawnToken expected = draw_token({&values[i * kVocab], kVocab}, rows[i], {kVocabReal, 2, 1}, scratch);
    EXPECT_EQ(together.ids[i], expected.token) << "row " << i << ", seed " << seed_;
    EXPECT_NEAR(together.logprobs[i], expected.logprob, 2e-5);
    Array alone = array(std::vector<float>(values.begin() + row * kVocab, values.begin() + (row + 1) * kVocab),
                        {1, kVocab}, DType::kF32);
    EXPECT_EQ(draw(alone, {rows[i]}).ids[0], together.ids[i]) << "row " << i << " alone, seed " << seed_;
  }
}

TEST_P(SamplingTest, NonFiniteLogitsGiveNoToken) {
  std::vector<float> values = normal(count({5, kVocab}));
  values[0 * kVocab + 3] = kNan;
  values[1 * kVocab + 499] = INFINITY;
  values[2 * kVocab + 0] = -INFINITY;
  values[3 * kVocab + 500] = kNan;  // not a real id: harmless
  const Drawn drawn = draw(array(values, {5, kVocab}, DType::kF32), std::vector<SampleRow>(5));
  EXPECT_EQ(drawn.ids[0], -1);
  EXPECT_EQ(drawn.ids[1], -1);
  EXPECT_EQ(drawn.ids[2], -1);
  EXPECT_GE(drawn.ids[3], 0);
  EXPECT_GE(drawn.ids[4], 0);
  for (const float logprob : drawn.logprobs) EXPECT_TRUE(std::isfinite(logprob));
}

TEST_P(SamplingTest, TokenLogprobs) {
  const Array x = logits(6), out = poisoned_f32({6});
  const std::vector<int32_t> targets{0, 499, -1, 17, 1, 2};
  backend_->token_logprobs(x, ints(targets, {6}), kVocabReal, out);
  const auto values = x.values(), found = out.values();
  for (int64_t row = 0; row < 6; ++row) {
    const int32_t target = targets[static_cast<size_t>(row)];
    const double expected = target < 0 ? 0.0 : logprob_oracle(values, row, target);
    EXPECT_NEAR(found[static_cast<size_t>(row)], expected, 2e-5) << "seed " << seed_;
  }
}

}  // namespace
}  // namespace optserve

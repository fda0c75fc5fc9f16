#include <gtest/gtest.h>

#include <algorithm>

#include "backend/backend_fixture.h"
#include "base/limits.h"
#include "sampling/logit_steps.h"

namespace optserve::backend {
namespace backend_sampling_test {

constexpr int64_t kVocab = 515, kVocabReal = 500, kHistory = 40, kBest = limits::kTopLogprobsMax;

class SamplingTest : public BackendTest {
 protected:
  struct Drawn {
    std::vector<int32_t> ids;
    std::vector<float> logprobs;
    std::vector<int32_t> best_ids;  // [rows, kBest]
    std::vector<float> best_logprobs;
  };
  // Row i has slot rows.size() - 1 - i. Afterwards the drawn ids must be in the history, and nothing else may have
  // changed.
  Drawn draw(const Array& logits, const std::vector<sampling::SampleRow>& rows) {
    const auto n = static_cast<int64_t>(rows.size());
    std::vector<int32_t> known(rows.size() * kHistory, -9);
    std::vector<sampling::PackedSampleRow> packed(rows.size());
    std::vector<int32_t> words(rows.size() * limits::kTokenRulesWordsMax, -5);
    uint32_t features = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      const size_t slot = rows.size() - 1 - i;
      std::ranges::copy(rows[i].history, known.begin() + static_cast<int64_t>(slot * kHistory));
      packed[i] = pack(rows[i].params, !rows[i].rules.empty(), static_cast<int32_t>(slot),
                       static_cast<int32_t>(rows[i].history.size()), static_cast<int32_t>(rows[i].prompt_tokens));
      if (!rows[i].allow_end) packed[i].flags &= ~uint32_t{sampling::PackedSampleRow::kAllowEnd};
      features |= sampling::sample_features(rows[i].params, !rows[i].rules.empty());
      std::ranges::copy(rows[i].rules, words.begin() + static_cast<int64_t>(slot * limits::kTokenRulesWordsMax));
    }
    const Array history = ints(known, {n, kHistory});
    const Array ids = ints(std::vector<int32_t>(rows.size(), -7), {n}), logprobs = poisoned_f32({n});
    Array device_rows{backend_.get(), backend_->allocate(packed.size() * sizeof(sampling::PackedSampleRow)), {}};
    device_rows.view = device_rows.buffer.view(DType::kU8, {n, sizeof(sampling::PackedSampleRow)});
    backend_->upload(device_rows.view, packed.data());
    const Array rules = ints(words, {n, static_cast<int64_t>(limits::kTokenRulesWordsMax)});
    const Array best_ids = ints(std::vector<int32_t>(rows.size() * kBest, -7), {n, kBest});
    const Array best_logprobs = poisoned_f32({n, kBest});
    backend_->sample(logits, {device_rows.view, features, history.view, kVocabReal, 2, 1, rules.view},
                     {ids.view, logprobs.view, best_ids.view, best_logprobs.view});
    Drawn drawn{ids.ints(), logprobs.values(), best_ids.ints(), best_logprobs.values()};
    for (size_t i = 0; i < rows.size(); ++i) {
      known[(rows.size() - 1 - i) * kHistory + rows[i].history.size()] = std::max(drawn.ids[i], 0);
    }
    EXPECT_EQ(history.ints(), known);
    return drawn;
  }
  Array logits(int64_t rows) { return array(normal(count({rows, kVocab}), 3), {rows, kVocab}, DType::kF32); }
  sampling::TokenRules random_rules(const std::vector<TokenId>& history) {
    const auto id = [&] { return static_cast<TokenId>(pick(0, kVocabReal - 1)); };
    sampling::TokenRules rules;
    if (pick(0, 3) == 0) {
      for (int64_t n = pick(1, 60); n > 0; --n) rules.allowed_ids.push_back(id());
    }
    for (int64_t n = pick(0, 6); n > 0; --n) {
      rules.logit_bias.push_back({id(), pick(0, 3) == 0 ? -100.0f : static_cast<float>(pick(-50, 50)) * 0.1f});
    }
    for (int64_t n = pick(0, 60); n > 0; --n) {
      std::vector<TokenId> word{id()};
      // Most of them have already begun at the end of the history.
      const size_t begun = std::min(static_cast<size_t>(pick(0, 3)), history.size());
      word.insert(word.begin(), history.end() - static_cast<std::ptrdiff_t>(begun), history.end());
      if (pick(0, 4) == 0) word.front() = id();
      rules.bad_words.push_back(std::move(word));
    }
    for (int64_t n = pick(0, 6); n > 0; --n) rules.stop_ids.push_back(id());
    for (int64_t n = pick(0, 2); n > 0 && !history.empty(); --n) rules.top_p_reset_ids.push_back(history.back());
    return rules;
  }
  // The first `wanted` columns hold the best ids, and the others are unchanged.
  void expect_best(const Drawn& drawn, size_t row, std::span<const float> logits, const sampling::SampleRow& asked,
                   sampling::SamplerScratch& scratch) {
    const auto columns = static_cast<size_t>(std::max(asked.params.logprobs, 0));
    std::vector<TokenId> ids(columns);
    std::vector<float> logprobs(columns);
    if (asked.params.is_beam_search()) {
      sampling::best_allowed_tokens(logits, asked, {kVocabReal, 2, 1}, ids, logprobs, scratch);
    } else {
      sampling::best_tokens(logits, ids, logprobs, scratch);
    }
    for (size_t i = 0; i < kBest; ++i) {
      EXPECT_EQ(drawn.best_ids[row * kBest + i], i < columns ? ids[i] : -7) << "row " << row << ", seed " << seed_;
      if (i < columns) {
        EXPECT_NEAR(drawn.best_logprobs[row * kBest + i], logprobs[i], 2e-5);
      }
    }
  }
  void compare_with_chain(int64_t profile);
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
  sampling::SampleRow row;
  row.params.temperature = 0;
  const Drawn drawn = draw(x, std::vector<sampling::SampleRow>(9, row));
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
  sampling::SampleRow row;
  row.params = {.temperature = 0.7f, .top_k = 20, .top_p = 0.9f, .repetition_penalty = 1.3f};
  const TokenId history[] = {4, 5, 6};
  row.history = history;
  draw(x, {row, row});
  EXPECT_EQ(x.values(), before);
}

// 80 rows with random parameters, all with profile `profile` or, if that is 3, with any profile.
void SamplingTest::compare_with_chain(int64_t profile) {
  constexpr int64_t kRows = 80;
  const Array x = logits(kRows);
  const auto values = x.values();
  std::vector<std::vector<TokenId>> histories(kRows);
  std::vector<std::vector<int32_t>> words(kRows);
  std::vector<sampling::SampleRow> rows(kRows);
  for (size_t i = 0; i < kRows; ++i) {
    for (int64_t n = pick(0, 30); n > 0; --n) histories[i].push_back(static_cast<TokenId>(pick(0, kVocabReal - 1)));
    rows[i].params = {.temperature = static_cast<float>(pick(0, 3)) * 0.5f,
                      .top_k = static_cast<int32_t>(pick(0, 3) * 20),
                      .top_p = static_cast<float>(pick(5, 10)) * 0.1f,
                      .min_p = static_cast<float>(std::max<int64_t>(0, pick(-3, 2))) * 0.05f,
                      .top_p_decay = static_cast<float>(pick(7, 10)) * 0.1f,
                      .top_p_min = static_cast<float>(pick(1, 3)) * 0.1f,
                      .top_p_decay_after = static_cast<int32_t>(pick(0, 2)),
                      .repetition_penalty = static_cast<float>(pick(8, 14)) * 0.1f,
                      .presence_penalty = static_cast<float>(pick(-1, 1)),
                      .frequency_penalty = static_cast<float>(pick(-1, 1)) * 0.5f,
                      .prompt_presence_penalty = static_cast<float>(pick(-1, 1)) * 0.25f,
                      .prompt_frequency_penalty = static_cast<float>(pick(-1, 1)) * 0.25f,
                      .seed = static_cast<uint64_t>(pick(0, 1 << 30)),
                      .logprobs = static_cast<int32_t>(pick(-1, kBest)),
                      .beam_width = pick(0, 2) == 0 ? 4 : 1,
                      .profile = static_cast<sampling::SamplingProfile>(profile < 3 ? profile : pick(0, 2))};
    if (i % 2 == 0) words[i] = pack(random_rules(histories[i]));
    rows[i].rules = words[i];
    rows[i].position = static_cast<int64_t>(histories[i].size());
    rows[i].allow_end = pick(0, 1) != 0;
    rows[i].history = histories[i];
    rows[i].prompt_tokens = static_cast<int64_t>(histories[i].size() / 2);
  }
  const Drawn together = draw(x, rows);
  sampling::SamplerScratch scratch(kVocabReal);
  for (size_t i = 0; i < kRows; ++i) {
    const auto row = static_cast<int64_t>(i);
    const sampling::DrawnToken expected =
        sampling::draw_token({&values[i * kVocab], kVocab}, rows[i], {kVocabReal, 2, 1}, scratch);
    EXPECT_EQ(together.ids[i], expected.token) << "row " << i << ", seed " << seed_;
    EXPECT_NEAR(together.logprobs[i], expected.logprob, 2e-5);
    expect_best(together, i, {&values[i * kVocab], kVocabReal}, rows[i], scratch);
    Array alone = array(std::vector<float>(values.begin() + row * kVocab, values.begin() + (row + 1) * kVocab),
                        {1, kVocab}, DType::kF32);
    EXPECT_EQ(draw(alone, {rows[i]}).ids[0], together.ids[i]) << "row " << i << " alone, seed " << seed_;
  }
}

TEST_P(SamplingTest, EqualsTheReferenceChainInAnyBatch) {
  for (int64_t profile = 0; profile <= 3; ++profile) compare_with_chain(profile);
}

// Logarithms differ in their last bits between devices, which can change which of two ids is nearer.
TEST_P(SamplingTest, TypicalDrawsEqualTheReferenceChainNearlyAlways) {
  constexpr int64_t kRows = 200;
  const Array x = logits(kRows);
  const auto values = x.values();
  std::vector<sampling::SampleRow> rows(kRows);
  for (sampling::SampleRow& row : rows) {
    row.params = {.temperature = static_cast<float>(pick(1, 4)) * 0.5f,
                  .top_k = static_cast<int32_t>(pick(0, 2) * 30),
                  .top_p = static_cast<float>(pick(7, 10)) * 0.1f,
                  .typical_p = static_cast<float>(pick(1, 9)) * 0.1f,
                  .seed = static_cast<uint64_t>(pick(0, 1 << 30))};
  }
  const Drawn drawn = draw(x, rows);
  sampling::SamplerScratch scratch(kVocabReal);
  int different = 0;
  for (size_t i = 0; i < kRows; ++i) {
    different +=
        sampling::draw_token({&values[i * kVocab], kVocab}, rows[i], {kVocabReal, 2, 1}, scratch).token != drawn.ids[i];
  }
  EXPECT_LE(different, 2) << "seed " << seed_;
}

TEST_P(SamplingTest, NonFiniteLogitsGiveNoToken) {
  std::vector<float> values = normal(count({5, kVocab}));
  values[0 * kVocab + 3] = kNan;
  values[1 * kVocab + 499] = INFINITY;
  values[2 * kVocab + 0] = -INFINITY;
  values[3 * kVocab + 500] = kNan;  // not a real id: harmless
  const Drawn drawn = draw(array(values, {5, kVocab}, DType::kF32), std::vector<sampling::SampleRow>(5));
  EXPECT_EQ(drawn.ids[0], -1);
  EXPECT_EQ(drawn.ids[1], -1);
  EXPECT_EQ(drawn.ids[2], -1);
  EXPECT_GE(drawn.ids[3], 0);
  EXPECT_GE(drawn.ids[4], 0);
  for (const float logprob : drawn.logprobs) EXPECT_TRUE(std::isfinite(logprob));
}

TEST_P(SamplingTest, PaddingRowsDrawNothing) {
  const Array x = logits(3), ids = ints({-7, -7, -7}, {3}), logprobs = poisoned_f32({3});
  const Array history = ints(std::vector<int32_t>(kHistory, -9), {1, kHistory});
  const std::vector<sampling::PackedSampleRow> rows{{}, sampling::pack({.temperature = 0}, false, 0, 0, 0), {}};
  Array device_rows{backend_.get(), backend_->allocate(sizeof(sampling::PackedSampleRow) * 3), {}};
  device_rows.view = device_rows.buffer.view(DType::kU8, {3, sizeof(sampling::PackedSampleRow)});
  backend_->upload(device_rows.view, rows.data());
  backend_->sample(x, {device_rows.view, 0, history.view, kVocabReal, 2, 1, {}}, {ids.view, logprobs.view, {}, {}});
  const auto found = ids.ints();
  EXPECT_EQ(found[0], -1);
  EXPECT_EQ(found[2], -1);
  EXPECT_EQ(history.ints()[0], found[1]);
  for (const float logprob : logprobs.values()) EXPECT_TRUE(std::isfinite(logprob));
}

// Rows as long as OPT's vocabulary test the passes over the blocks of a row, and ties that are far apart.
TEST_P(SamplingTest, ALongVocabularyEqualsTheReferenceChain) {
  constexpr int64_t kLong = 50272, kLongReal = 50265, kRows = 12;
  std::vector<float> values = normal(count({kRows, kLong}), 2);
  for (size_t i = 0; i < values.size(); i += 97) values[i] = 7.5f;  // many equal leaders
  const Array x = array(values, {kRows, kLong}, DType::kF32);
  std::vector<sampling::PackedSampleRow> packed(kRows);
  uint32_t features = 0;
  for (size_t i = 0; i < packed.size(); ++i) {
    const sampling::SamplingParams params{.temperature = i % 4 == 0 ? 0.0f : 0.3f * static_cast<float>(i % 5 + 1),
                                          .top_k = i % 3 == 0 ? 0 : static_cast<int32_t>(pick(1, 2000)),
                                          .top_p = i % 2 == 0 ? 1.0f : static_cast<float>(pick(1, 99)) * 0.01f,
                                          .seed = static_cast<uint64_t>(pick(0, 1 << 30))};
    packed[i] = pack(params, false, static_cast<int32_t>(i), 3, 1);
    features |= sampling::sample_features(params, false);
  }
  const Array history = ints(std::vector<int32_t>(kRows * 4, 5), {kRows, 4});
  const Array ids = ints(std::vector<int32_t>(kRows, -7), {kRows}), logprobs = poisoned_f32({kRows});
  Array device_rows{backend_.get(), backend_->allocate(packed.size() * sizeof(sampling::PackedSampleRow)), {}};
  device_rows.view = device_rows.buffer.view(DType::kU8, {kRows, sizeof(sampling::PackedSampleRow)});
  backend_->upload(device_rows.view, packed.data());
  backend_->sample(x, {device_rows.view, features, history.view, kLongReal, 2, 1, {}},
                   {ids.view, logprobs.view, {}, {}});
  sampling::SamplerScratch scratch(kLongReal);
  const std::vector<TokenId> known{5, 5, 5};
  const auto found = ids.ints();
  for (size_t i = 0; i < packed.size(); ++i) {
    const std::span row(&values[i * kLong], kLong);
    const sampling::DrawnToken expected =
        sampling::draw_token(row, sampling::unpack(packed[i], known, {}), {kLongReal, 2, 1}, scratch);
    EXPECT_EQ(found[i], expected.token) << "row " << i << ", seed " << seed_;
    EXPECT_NEAR(logprobs.values()[i], expected.logprob, 2e-5);
  }
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

// Rows of OPT's length with ties, and a row that is not finite; beside each target the best ids of its row.
TEST_P(SamplingTest, TokenLogprobsWithTheBestIds) {
  constexpr int64_t kLong = 50272, kLongReal = 50265, kRows = 8;
  constexpr size_t kColumns = limits::kTopLogprobsMax, kCount = 7;
  std::vector<float> values = normal(count({kRows, kLong}), 2);
  for (size_t i = 0; i < kLong; i += 9'973) values[i] = 11.5f;  // equal leaders of the first row, in several tiles
  for (size_t row = 0; row < kRows; ++row) {
    for (size_t id = kLongReal; id < kLong; ++id) values[row * kLong + id] = 40;  // padding
  }
  values[6 * kLong + 3] = NAN;
  std::vector<int32_t> targets{9'973, 499, -1, 50'264, 1, 2, 7, 0};
  for (const size_t row : {1, 7}) {  // whose target is the best
    const auto* first = &values[row * kLong];
    targets[row] = static_cast<int32_t>(std::max_element(first, first + kLongReal) - first);
  }
  const Array x = array(values, {kRows, kLong}, DType::kF32), out = poisoned_f32({kRows}),
              logprobs = poisoned_f32({kRows, kColumns});
  const Array ids = ints(std::vector<int32_t>(kRows * kColumns, -7), {kRows, kColumns});
  backend_->token_logprobs(x, ints(targets, {kRows}), kLongReal, out, {kCount, ids.view, logprobs.view});
  const std::vector<int32_t> found_ids = ids.ints();
  const std::vector<float> found = logprobs.values(), scores = out.values();
  sampling::SamplerScratch scratch(kLongReal);
  for (size_t row = 0; row < kRows; ++row) {
    SCOPED_TRACE("row " + std::to_string(row) + ", seed " + std::to_string(seed_));
    const size_t at = row * kColumns;
    EXPECT_EQ(found_ids[at + kCount], -7) << "columns that nobody asked for";
    if (targets[row] < 0) {
      EXPECT_EQ(found_ids[at], -7);
      continue;
    }
    std::vector<TokenId> expected(kCount);
    std::vector<float> expected_logprobs(kCount);
    sampling::best_tokens({&values[row * kLong], kLongReal}, expected, expected_logprobs, scratch);
    EXPECT_EQ(std::vector<int32_t>(&found_ids[at], &found_ids[at + kCount]), expected);
    for (size_t i = 0; i < kCount; ++i) {
      EXPECT_NEAR(found[at + i], expected_logprobs[i], 2e-5);
      if (found_ids[at + i] == targets[row]) {
        EXPECT_EQ(found[at + i], scores[row]) << "the same number";
      }
    }
  }
  EXPECT_EQ(std::vector<int32_t>(&found_ids[0], &found_ids[6]),
            (std::vector<int32_t>{0, 9'973, 2 * 9'973, 3 * 9'973, 4 * 9'973, 5 * 9'973}));
  EXPECT_EQ(found_ids[kColumns], targets[1]);
  EXPECT_EQ(found_ids[6 * kColumns], -1);
  EXPECT_TRUE(std::isnan(scores[6]));
}

}  // namespace backend_sampling_test
}  // namespace optserve::backend

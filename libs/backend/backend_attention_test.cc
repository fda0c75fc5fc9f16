// Attention over the paged cache: random sequences in shuffled blocks, chunks of prompts beside decoding rows.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "backend/backend_fixture.h"

namespace optserve {
namespace backend_attention_test {

struct AttentionCase {
  int64_t heads, head_dim, block_tokens;  // GPUs have blocks of 16 only

  // Where the cells of one token and head lie in keys and values.
  int64_t cell(int64_t slot, int64_t head) const {
    return ((slot / block_tokens * heads + head) * block_tokens + slot % block_tokens) * head_dim;
  }
  std::vector<int64_t> context;  // of each sequence, including this step's rows
  std::vector<int64_t> rows;     // of each sequence in this step
};

class AttentionTest : public BackendTest {
 protected:
  // A step with its cache. Tokens before the step are in the cache already; everything else there is NaN.
  struct Step {
    AttentionBatch batch;
    KvLayer layer;
    Array keys, values, qkv, row_begin, context, table_rows, block_table, kv_slots, tiles;
    std::vector<std::vector<int64_t>> slots;  // [sequence][position]
  };

  Step make_step(const AttentionCase& c) {
    Step step;
    int64_t max_blocks = 1, blocks = 2;  // two more than needed
    for (const int64_t context : c.context) {
      max_blocks = std::max(max_blocks, (context + c.block_tokens - 1) / c.block_tokens);
      blocks += (context + c.block_tokens - 1) / c.block_tokens;
    }
    std::vector<int32_t> shuffled(static_cast<size_t>(blocks));
    std::iota(shuffled.begin(), shuffled.end(), 0);
    std::shuffle(shuffled.begin(), shuffled.end(), random_);

    const int64_t width = c.heads * c.head_dim;
    std::vector<float> keys(static_cast<size_t>(blocks * c.block_tokens * width), kNan), values = keys;
    std::vector<int32_t> table(c.context.size() * static_cast<size_t>(max_blocks), 0), row_begin{0}, context, kv_slots;
    std::vector<int32_t> tiles, table_rows(c.context.size());
    std::iota(table_rows.begin(), table_rows.end(), 0);
    std::shuffle(table_rows.begin(), table_rows.end(), random_);
    size_t next = 0;
    for (size_t s = 0; s < c.context.size(); ++s) {
      std::vector<int64_t> slots;
      for (int64_t position = 0; position < c.context[s]; ++position) {
        const auto entry = static_cast<size_t>(table_rows[s] * max_blocks + position / c.block_tokens);
        if (position % c.block_tokens == 0) table[entry] = shuffled[next++];
        slots.push_back(table[entry] * c.block_tokens + position % c.block_tokens);
        if (position < c.context[s] - c.rows[s]) {
          for (int64_t head = 0; head < c.heads; ++head) {
            const auto size = static_cast<size_t>(c.head_dim);
            std::ranges::copy(normal(size), keys.begin() + c.cell(slots.back(), head));
            std::ranges::copy(normal(size), values.begin() + c.cell(slots.back(), head));
          }
        } else {
          kv_slots.push_back(static_cast<int32_t>(slots.back()));
        }
      }
      step.slots.push_back(std::move(slots));
      if (c.rows[s] == 1 && step.batch.num_decodes == static_cast<int64_t>(s)) {
        ++step.batch.num_decodes;
      } else {
        for (int64_t row = 0; row < c.rows[s]; row += kAttentionTileRows) {
          tiles.insert(tiles.end(), {static_cast<int32_t>(s), static_cast<int32_t>(row)});
        }
      }
      row_begin.push_back(static_cast<int32_t>(row_begin.back() + c.rows[s]));
      context.push_back(static_cast<int32_t>(c.context[s]));
    }
    const auto sequences = static_cast<int64_t>(c.context.size()), tokens = static_cast<int64_t>(kv_slots.size());
    step.keys = array(keys, {blocks, c.heads, c.block_tokens, c.head_dim});
    step.values = array(values, {blocks, c.heads, c.block_tokens, c.head_dim});
    step.layer = {step.keys.view, step.values.view};
    step.qkv = random({tokens, 3 * width});
    step.row_begin = ints(row_begin, {sequences + 1});
    step.context = ints(context, {sequences});
    step.table_rows = ints(table_rows, {sequences});
    step.block_table = ints(table, {sequences, max_blocks});
    step.tiles = ints(tiles, {static_cast<int64_t>(tiles.size()) / 2, 2});
    step.kv_slots = ints(kv_slots, {tokens});
    step.batch = {.num_sequences = sequences,
                  .num_decodes = step.batch.num_decodes,
                  .row_begin = step.row_begin.view,
                  .context = step.context.view,
                  .table_rows = step.table_rows.view,
                  .block_table = step.block_table.view,
                  .kv_slots = step.kv_slots.view,
                  .tiles = step.tiles.view};
    return step;
  }

  bool any_block_size() const { return GetParam().options.device.kind == DeviceKind::kCpu; }

  std::vector<float> run(const AttentionCase& c, const Step& step) {
    const Array out = poisoned({step.kv_slots.view.dim(0), c.heads * c.head_dim});
    backend_->attention(step.qkv, step.batch, step.layer, out);
    return out.values();
  }

  // softmax(q k^T / sqrt(head_dim)) v of one row and head. `slots`: of the tokens that the row sees; `offset`: of the
  // head in a row of the cache.
  struct Cache {
    std::vector<float> keys, values;
    AttentionCase sizes;
  };
  static std::vector<double> oracle(const float* query, const Cache& cache, std::span<const int64_t> slots,
                                    int64_t head) {
    const int64_t head_dim = cache.sizes.head_dim;
    std::vector<double> scores, result(static_cast<size_t>(head_dim), 0.0);
    for (const int64_t slot : slots) {
      const float* key = cache.keys.data() + cache.sizes.cell(slot, head);
      double score = 0;
      for (int64_t i = 0; i < head_dim; ++i) score += static_cast<double>(query[i]) * static_cast<double>(key[i]);
      scores.push_back(score / std::sqrt(static_cast<double>(head_dim)));
    }
    const double largest = std::ranges::max(scores);
    double total = 0;
    for (double& score : scores) total += score = std::exp(score - largest);
    for (size_t p = 0; p < slots.size(); ++p) {
      const float* value = cache.values.data() + cache.sizes.cell(slots[p], head);
      for (size_t i = 0; i < result.size(); ++i) result[i] += scores[p] / total * static_cast<double>(value[i]);
    }
    return result;
  }

  void expect_oracle(const AttentionCase& c) {
    const Step step = make_step(c);
    const std::vector<float> found = run(c, step), qkv = step.qkv.values();
    const Cache cache{step.keys.values(), step.values.values(), c};
    const int64_t width = c.heads * c.head_dim;
    int64_t row = 0;
    for (size_t s = 0; s < c.context.size(); ++s) {
      for (int64_t i = 0; i < c.rows[s]; ++i, ++row) {
        const auto visible = std::span(step.slots[s]).first(static_cast<size_t>(c.context[s] - c.rows[s] + i + 1));
        for (int64_t head = 0; head < c.heads; ++head) {
          const int64_t offset = head * c.head_dim;
          const auto expected = oracle(qkv.data() + row * 3 * width + offset, cache, visible, head);
          for (int64_t d = 0; d < c.head_dim; ++d) {
            // Scores of about 3 are off by some roundings of a sum of head_dim terms; values are of size 1.
            expect_near(found[static_cast<size_t>(row * width + offset + d)], expected[static_cast<size_t>(d)], 4,
                        8 + 4 * std::sqrt(static_cast<double>(c.head_dim)), at(row, offset + d));
          }
        }
      }
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Backends, AttentionTest, testing::ValuesIn(backends_under_test()), case_name);

TEST_P(AttentionTest, DecodingRowsOfEveryHeadSize) {
  for (const int64_t head_dim : {1, 3, 17, 64, 80, 96, 128, 256}) {
    expect_oracle({3, head_dim, 16, {1, 2, 15, 16, 17, 100}, {1, 1, 1, 1, 1, 1}});
  }
}

TEST_P(AttentionTest, HeadCountsAndBlockSizes) {
  for (const int64_t heads : {1, 2, 5, 12}) {
    for (const int64_t block_tokens : {16, 1, 3, 32}) {
      expect_oracle({heads, 8, block_tokens, {33, 1, 7}, {1, 1, 1}});
      if (!any_block_size()) break;
    }
  }
}

TEST_P(AttentionTest, PromptsAndChunksBesideDecodingRows) {
  expect_oracle({4, 64, 16, {40, 40, 17, 9}, {40, 1, 16, 5}});  // a whole prompt, a decode, two chunks
  expect_oracle({2, 80, 16, {3, 64}, {3, 7}});
}

TEST_P(AttentionTest, TheLongestContext) { expect_oracle({1, 64, 16, {2048}, {2}}); }

TEST_P(AttentionTest, RandomSteps) {
  for (int round = 0; round < 10; ++round) {
    AttentionCase c{pick(1, 6), pick(1, 70), any_block_size() ? pick(1, 20) : 16, {}, {}};
    for (int64_t s = pick(1, 6); s > 0; --s) {
      c.context.push_back(pick(1, 90));
      c.rows.push_back(pick(1, c.context.back()));
    }
    expect_oracle(c);
  }
}

TEST_P(AttentionTest, OnlyItsSlotsAreWritten) {
  for (const AttentionCase& c :
       {AttentionCase{2, 5, 16, {36, 3}, {20, 3}}, AttentionCase{3, 64, 16, {17, 40}, {1, 1}}}) {
    const Step step = make_step(c);
    const int64_t width = c.heads * c.head_dim;
    std::vector<float> keys = step.keys.values(), values = step.values.values();
    const std::vector<float> qkv = step.qkv.values();
    run(c, step);
    const std::vector<int32_t> slots = step.kv_slots.ints();
    for (size_t row = 0; row < slots.size(); ++row) {
      for (int64_t i = 0; i < width; ++i) {
        const auto cell = static_cast<size_t>(c.cell(slots[row], i / c.head_dim) + i % c.head_dim);
        const size_t at = row * 3 * static_cast<size_t>(width) + static_cast<size_t>(i);
        keys[cell] = qkv[at + static_cast<size_t>(width)];
        values[cell] = qkv[at + 2 * static_cast<size_t>(width)];
      }
    }
    const auto expect_bits = [](const std::vector<float>& found, const std::vector<float>& expected) {
      for (size_t i = 0; i < found.size(); ++i) {
        ASSERT_TRUE(found[i] == expected[i] || (std::isnan(found[i]) && std::isnan(expected[i]))) << "cell " << i;
      }
    };
    expect_bits(step.keys.values(), keys);
    expect_bits(step.values.values(), values);
  }
}

TEST_P(AttentionTest, ChunksAndCompanyDoNotChangeARow) {
  if (!GetParam().batch_invariant) GTEST_SKIP() << "not promised by this backend";
  const int64_t heads = 5, head_dim = 64, width = heads * head_dim;
  // One prompt of 50 tokens as a whole beside another sequence, then in chunks alone.
  const Step whole = make_step({heads, head_dim, 16, {50, 20}, {50, 1}});
  const std::vector<float> expected = run({heads, head_dim, 16, {50, 20}, {50, 1}}, whole);
  for (const std::vector<int64_t>& chunks : {std::vector<int64_t>{25, 25}, {1, 48, 1}, {3, 44, 3}}) {
    int64_t done = 0;
    for (const int64_t rows : chunks) {
      AttentionBatch batch = whole.batch;
      const Array row_begin = ints({0, static_cast<int32_t>(rows)}, {2});
      const Array context = ints({static_cast<int32_t>(done + rows)}, {1});
      batch.num_sequences = 1;
      batch.num_decodes = rows == 1 ? 1 : 0;
      const Array tile = ints({0, 0}, {1, 2});
      batch.tiles = tile.view.rows(0, rows == 1 ? 0 : 1);
      batch.row_begin = row_begin.view;
      batch.context = context.view;
      batch.table_rows = batch.table_rows.rows(0, 1);
      batch.kv_slots = batch.kv_slots.rows(done, done + rows);
      const Array out = poisoned({rows, width});
      const Tensor qkv = whole.qkv.view.rows(done, done + rows);
      backend_->attention(qkv, batch, whole.layer, out);
      const std::vector<float> found = out.values();
      for (size_t i = 0; i < found.size(); ++i) {
        ASSERT_EQ(found[i], expected[static_cast<size_t>(done * width) + i]) << "row " << done << " seed " << seed_;
      }
      done += rows;
    }
  }
}

TEST_P(AttentionTest, ExtremeScoresStayFinite) {
  const AttentionCase c{1, 64, 16, {30}, {30}};
  const Step step = make_step(c);
  std::vector<float> qkv = step.qkv.values();
  for (float& value : qkv) value *= 100;  // scores of some 80,000
  const Array large = array(qkv, {30, 192});
  const Array out = poisoned({30, 64});
  backend_->attention(large, step.batch, step.layer, out);
  for (const float value : out.values()) ASSERT_TRUE(std::isfinite(value)) << "seed " << seed_;
}

TEST_P(AttentionTest, BrokenTablesAbort) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  if (GetParam().options.device.kind != DeviceKind::kCpu) GTEST_SKIP() << "only the CPU reads the tables on the host";
  const AttentionCase c{1, 8, 4, {6}, {2}};
  Step step = make_step(c);
  const Array out = poisoned({2, 8});
  const Array context = ints({9}, {1}), slots = ints({0, 1000}, {2});
  step.batch.context = context.view;
  EXPECT_DEATH(backend_->attention(step.qkv, step.batch, step.layer, out), "context outside the block table");
  step.batch.kv_slots = slots.view;
  EXPECT_DEATH(backend_->attention(step.qkv, step.batch, step.layer, out), "slot outside the cache");
}

TEST_P(AttentionTest, PaddingSequencesTouchNothing) {
  if (any_block_size()) GTEST_SKIP() << "only GPUs pad their steps";
  const AttentionCase c{2, 64, 16, {20, 33}, {1, 1}};
  Step step = make_step(c);
  const Array context = ints({0, 33}, {2}), slots = ints({-1, step.kv_slots.ints()[1]}, {2});
  step.batch.context = context.view;
  step.batch.kv_slots = slots.view;
  const auto keys = step.keys.values();
  const auto found = run(c, step);
  for (size_t i = 0; i < 128; ++i) EXPECT_EQ(found[i], 0.0f);
  for (size_t i = 128; i < 256; ++i) EXPECT_TRUE(std::isfinite(found[i]));
  const auto after = step.keys.values();
  for (int64_t i = 0; i < 128; ++i) {
    const auto cell = static_cast<size_t>(c.cell(step.slots[0].back(), i / 64) + i % 64);
    EXPECT_TRUE(std::isnan(after[cell]) && std::isnan(keys[cell]));
  }
}

}  // namespace backend_attention_test
}  // namespace optserve

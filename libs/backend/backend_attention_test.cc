// Attention over the paged cache: random sequences in shuffled blocks, with chunks of prompts beside decoding rows, in
// cells of the compute type and of int8.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "backend/backend_fixture.h"

namespace optserve::backend {
namespace backend_attention_test {

struct AttentionCase {
  int64_t heads, head_dim, block_tokens;  // GPUs only have blocks of 16

  // Where the cells of one token and head lie in keys and values.
  int64_t cell(int64_t slot, int64_t head) const {
    return ((slot / block_tokens * heads + head) * block_tokens + slot % block_tokens) * head_dim;
  }
  std::vector<int64_t> context;  // of each sequence, including this step's rows
  std::vector<int64_t> rows;     // of each sequence in this step
  bool int8 = false;             // cells of the cache
};

// An int8 cell of these elements, as backend.h defines it.
struct Int8Cell {
  float scale;
  std::vector<int8_t> values;

  explicit Int8Cell(std::span<const float> elements) {
    float largest = 0;
    for (const float element : elements) largest = std::max(largest, std::abs(element));
    scale = largest / 127;
    for (const float element : elements) {
      values.push_back(static_cast<int8_t>(std::nearbyint(largest > 0 ? element * (127 / largest) : 0)));
    }
  }
};

class AttentionTest : public BackendTest {
 protected:
  // Keys or values on the host. Cells that are never stored are NaN; in int8 they are the code that is never stored,
  // with a scale of NaN.
  struct Cells {
    Cells(const AttentionCase& sizes, int64_t blocks) : c(sizes) {
      const auto tokens = static_cast<size_t>(blocks * c.heads * c.block_tokens);
      const size_t elements = tokens * static_cast<size_t>(c.head_dim);
      if (c.int8) {
        small.assign(elements, -128);
        scales.assign(tokens, kNan);
      } else {
        plain.assign(elements, kNan);
      }
    }
    void put(int64_t at, const std::vector<float>& elements) {
      if (!c.int8) {
        std::ranges::copy(elements, plain.begin() + at);
        return;
      }
      const Int8Cell cell{elements};
      std::ranges::copy(cell.values, small.begin() + at);
      scales[static_cast<size_t>(at / c.head_dim)] = cell.scale;
    }
    AttentionCase c;
    std::vector<float> plain;
    std::vector<int8_t> small;
    std::vector<float> scales;
  };

  Array cells_array(const Cells& cells, std::initializer_list<int64_t> shape) {
    if (!cells.c.int8) return array(cells.plain, shape);
    Array result{backend_.get(), backend_->allocate(cells.small.size()), {}};
    result.view = result.buffer.view(DType::kI8, shape);
    backend_->upload(result.view, cells.small.data());
    backend_->synchronize();
    return result;
  }

  static std::vector<int8_t> small_values(const Array& cells) {
    std::vector<int8_t> small(static_cast<size_t>(cells.view.numel()));
    cells.backend->download(small.data(), cells.view);
    return small;
  }

  // The elements that cells stand for.
  static std::vector<float> elements_of(const AttentionCase& c, const Array& cells, const Array& scales) {
    if (!c.int8) return cells.values();
    const std::vector<int8_t> small = small_values(cells);
    const std::vector<float> factors = scales.values();
    std::vector<float> elements(small.size());
    for (size_t i = 0; i < elements.size(); ++i) {
      elements[i] = static_cast<float>(small[i]) * factors[i / static_cast<size_t>(c.head_dim)];
    }
    return elements;
  }

  // A step with its cache. Tokens before the step are already in the cache; everything else there is NaN.
  struct Step {
    AttentionBatch batch;
    KvLayer layer;
    Array keys, values, key_scales, value_scales, qkv, row_begin, context, table_rows, block_table, kv_slots, tiles;
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
    Cells keys(c, blocks), values(c, blocks);
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
            keys.put(c.cell(slots.back(), head), normal(size));
            values.put(c.cell(slots.back(), head), normal(size));
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
    const auto upload = [&](const Cells& cells, Array& array_of_cells, Array& scales) {
      array_of_cells = cells_array(cells, {blocks, c.heads, c.block_tokens, c.head_dim});
      if (c.int8) scales = array(cells.scales, {blocks, c.heads, c.block_tokens}, DType::kF32);
    };
    upload(keys, step.keys, step.key_scales);
    upload(values, step.values, step.value_scales);
    step.layer = {step.keys.view, step.values.view, step.key_scales.view, step.value_scales.view};
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

  // Runs the first norm of a step, after which a device may read the cache before the kernel before attention ends.
  void settle() {
    const Array x = random({1, 8}), gamma = random({8});
    backend_->layer_norm(x, gamma, gamma, poisoned({1, 8}));
  }

  std::vector<float> run(const AttentionCase& c, const Step& step) {
    if (settles_) settle();
    const Array out = poisoned({step.kv_slots.view.dim(0), c.heads * c.head_dim});
    backend_->attention(step.qkv, step.batch, step.layer, out);
    return out.values();
  }

  // softmax(q k^T / sqrt(head_dim)) v of one row and head. `slots` are those of the tokens that the row sees, and
  // `offset` is that of the head in a row of the cache.
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

  void expect_oracle(AttentionCase c) {
    for (const bool int8 : {false, true}) {
      for (const bool settles : {false, true}) {
        c.int8 = int8;
        settles_ = settles;
        if (!settles || !any_block_size()) expect_oracle_of_cells(c);
      }
    }
  }

  void expect_oracle_of_cells(const AttentionCase& c) {
    SCOPED_TRACE(c.int8 ? "int8 cells" : "plain cells");
    const Step step = make_step(c);
    const std::vector<float> found = run(c, step), qkv = step.qkv.values();
    const Cache cache{elements_of(c, step.keys, step.key_scales), elements_of(c, step.values, step.value_scales), c};
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

  // The first sequence of a step, a prompt of 50 tokens: as a whole beside the others, then in chunks alone.
  void expect_same_rows(const AttentionCase& c) {
    const int64_t width = c.heads * c.head_dim;
    const Step whole = make_step(c);
    const std::vector<float> expected = run(c, whole);
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

  bool settles_ = false;

  static void expect_bits(const std::vector<float>& found, const std::vector<float>& expected) {
    for (size_t i = 0; i < found.size(); ++i) {
      ASSERT_TRUE(found[i] == expected[i] || (std::isnan(found[i]) && std::isnan(expected[i]))) << "cell " << i;
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

// Enough sequences and heads for the other shape of a block.
TEST_P(AttentionTest, ManySequences) {
  if (any_block_size()) GTEST_SKIP() << "the CPU has one shape";
  for (const int64_t head_dim : {64, 80, 128}) {
    AttentionCase c{16, head_dim, 16, {}, {}};
    for (int64_t s = 0; s < 70; ++s) c.context.push_back(pick(1, 150));
    c.rows.assign(70, 1);
    expect_oracle(c);
  }
}

TEST_P(AttentionTest, TheLongestContext) { expect_oracle({1, 64, 16, {2048}, {2}}); }

// On a GPU, these are cut into parts for different blocks of threads.
TEST_P(AttentionTest, LongContextsOfFewSequences) {
  for (const int64_t head_dim : {64, 80, 128}) expect_oracle({2, head_dim, 16, {1025, 700}, {1, 1}});
}

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
    expect_bits(step.keys.values(), keys);
    expect_bits(step.values.values(), values);
  }
}

// Every path stores the same bits: decoding rows, rows of prompts, and sizes that kernels have no fast path for.
TEST_P(AttentionTest, Int8CellsAreRoundedAsTheyAreDefined) {
  for (const AttentionCase& c :
       {AttentionCase{2, 5, 16, {36, 3}, {20, 3}, true}, AttentionCase{2, 5, 16, {36, 3}, {1, 1}, true},
        AttentionCase{3, 64, 16, {17, 40}, {1, 1}, true}, AttentionCase{3, 64, 16, {17, 40}, {3, 40}, true},
        AttentionCase{2, 80, 16, {17, 40, 9}, {1, 1, 9}, true}, AttentionCase{2, 128, 16, {33, 40}, {1, 7}, true}}) {
    const Step step = make_step(c);
    const int64_t width = c.heads * c.head_dim;
    std::vector<int8_t> cells[2] = {small_values(step.keys), small_values(step.values)};
    std::vector<float> scales[2] = {step.key_scales.values(), step.value_scales.values()};
    const std::vector<float> qkv = step.qkv.values();
    run(c, step);
    const std::vector<int32_t> slots = step.kv_slots.ints();
    for (int64_t item = 0; item < static_cast<int64_t>(slots.size()) * c.heads * 2; ++item) {
      const int64_t row = item / (2 * c.heads), head = item / 2 % c.heads, part = item % 2;
      const auto first = qkv.begin() + (row * 3 + 1 + part) * width + head * c.head_dim;
      const Int8Cell cell(std::span(first, first + c.head_dim));
      const int64_t at = c.cell(slots[static_cast<size_t>(row)], head);
      std::ranges::copy(cell.values, cells[part].begin() + at);
      scales[part][static_cast<size_t>(at / c.head_dim)] = cell.scale;
    }
    EXPECT_EQ(small_values(step.keys), cells[0]) << "head_dim " << c.head_dim << ", seed " << seed_;
    EXPECT_EQ(small_values(step.values), cells[1]) << "head_dim " << c.head_dim << ", seed " << seed_;
    expect_bits(step.key_scales.values(), scales[0]);
    expect_bits(step.value_scales.values(), scales[1]);
  }
}

// Zeros and numbers without a reciprocal are stored as zeros. NaN and infinity make the row NaN, as they do without
// int8.
TEST_P(AttentionTest, Int8CellsOfExtremeRows) {
  const auto largest_of_row = [&](float value) {
    const AttentionCase c{1, 64, 16, {17}, {1}, true};
    const Step step = make_step(c);
    std::vector<float> qkv = step.qkv.values();
    std::ranges::fill(qkv.begin() + 64, qkv.end(), 0.0f);
    qkv[64 + 5] = qkv[128 + 9] = value;
    const Array changed = array(qkv, {1, 192});
    const Array out = poisoned({1, 64});
    backend_->attention(changed, step.batch, step.layer, out);
    return out.values();
  };
  for (const float value : {0.0f, 1e-38f}) {
    for (const float found : largest_of_row(value)) EXPECT_TRUE(std::isfinite(found)) << "seed " << seed_;
  }
  for (const float value : {kNan, std::numeric_limits<float>::infinity()}) {
    for (const float found : largest_of_row(value)) EXPECT_TRUE(std::isnan(found)) << "seed " << seed_;
  }
}

TEST_P(AttentionTest, Int8CellsNeedBothScales) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  Step step = make_step({1, 64, 16, {17}, {1}, true});
  const Array out = poisoned({1, 64});
  step.layer.value_scales = {};
  EXPECT_DEATH(backend_->attention(step.qkv, step.batch, step.layer, out), "attention: value_scales: ");
  step.layer.key_scales = {};
  EXPECT_DEATH(backend_->attention(step.qkv, step.batch, step.layer, out), "attention: keys: expected .*found I8");
}

TEST_P(AttentionTest, ChunksAndCompanyDoNotChangeARow) {
  if (!GetParam().batch_invariant) GTEST_SKIP() << "not promised by this backend";
  for (const bool int8 : {false, true}) expect_same_rows({5, 64, 16, {50, 20}, {50, 1}, int8});
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
}  // namespace optserve::backend

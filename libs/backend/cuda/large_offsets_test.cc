// Elements that lie more than 2^31 and 2^32 elements from the start of their tensor, in KV pools, tables, weights and
// logits of that size. Results from far out are compared with the CPU backend or a double sum. In a KV pool, the places
// that an offset without its upper half would read hold NaN.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "backend/backend_fixture.h"

namespace optserve::backend {
namespace large_offsets_test {

constexpr int64_t kFar = int64_t{1} << 31, kFarther = int64_t{1} << 32;
constexpr size_t kSpareBytes = size_t{2} << 30;  // for everything besides the large tensors

class LargeOffsetsTest : public BackendTest {
 protected:
  // Whether that many bytes and some more are free; otherwise the test must be skipped with `why_not_`.
  bool has_room(size_t bytes) {
    const size_t free_bytes = backend_->memory().value().free_bytes;
    why_not_ = "needs " + std::to_string((bytes + kSpareBytes) >> 20) + " MiB of device memory, " +
               std::to_string(free_bytes >> 20) + " are free";
    return free_bytes >= bytes + kSpareBytes;
  }
  size_t bytes_of(int64_t elements) const { return static_cast<size_t>(elements) * dtype_bytes(element_type()); }
  DType element_type() const { return backend_->compute_dtype(); }

  void store(const Tensor& destination, const std::vector<float>& values) {
    std::vector<std::byte> bytes(destination.bytes());
    convert_from_f32(values.data(), destination.dtype(), bytes.data(), values.size());
    backend_->upload(destination, bytes.data());
    backend_->synchronize();
  }
  std::vector<float> load(const Tensor& source) { return Array{backend_.get(), {}, source}.values(); }
  // The values as the device's type holds them.
  std::vector<float> rounded(const std::vector<float>& values) {
    return array(values, {static_cast<int64_t>(values.size())}).values();
  }

  std::string why_not_;
};
INSTANTIATE_TEST_SUITE_P(Backends, LargeOffsetsTest, testing::ValuesIn(backends_under_test()), case_name);

// ---- Attention

constexpr int64_t kHeads = 8, kHeadDim = 128, kBlockTokens = 16, kWidth = kHeads * kHeadDim;
constexpr int64_t kBlockElements = kWidth * kBlockTokens;

// One step of some sequences over a cache on one backend.
struct KvStep {
  std::vector<int32_t> context, rows, blocks;  // blocks of all sequences, in order of sequences and positions
  int32_t max_blocks = 0;

  int64_t tokens() const {
    int64_t sum = 0;
    for (const int32_t count : rows) sum += count;
    return sum;
  }
};

class Ints {
 public:
  explicit Ints(Backend& backend) : backend_(backend) {}
  Tensor add(const std::vector<int32_t>& values, std::initializer_list<int64_t> shape) {
    buffers_.push_back(backend_.allocate(values.size() * sizeof(int32_t)));
    const Tensor view = buffers_.back().view(DType::kI32, shape);
    backend_.upload(view, values.data());
    backend_.synchronize();
    return view;
  }

 private:
  Backend& backend_;
  std::vector<Buffer> buffers_;
};

AttentionBatch make_batch(Ints& ints, const KvStep& step) {
  const auto sequences = static_cast<int64_t>(step.context.size());
  std::vector<int32_t> row_begin{0}, table, table_rows, slots, tiles;
  AttentionBatch batch;
  size_t next = 0;
  for (int32_t s = 0; s < static_cast<int32_t>(sequences); ++s) {
    const int32_t context = step.context[static_cast<size_t>(s)], rows = step.rows[static_cast<size_t>(s)];
    const size_t begin = table.size();
    for (int32_t position = 0; position < context; position += kBlockTokens) table.push_back(step.blocks[next++]);
    for (int32_t position = context - rows; position < context; ++position) {
      const int32_t block = table[begin + static_cast<size_t>(position / kBlockTokens)];
      slots.push_back(block * static_cast<int32_t>(kBlockTokens) + position % static_cast<int32_t>(kBlockTokens));
    }
    table.resize(begin + static_cast<size_t>(step.max_blocks), 0);
    table_rows.push_back(s);
    row_begin.push_back(row_begin.back() + rows);
    if (rows == 1) ++batch.num_decodes;
    for (int32_t row = 0; rows > 1 && row < rows; row += kAttentionTileRows) tiles.insert(tiles.end(), {s, row});
  }
  batch.num_sequences = sequences;
  batch.row_begin = ints.add(row_begin, {sequences + 1});
  batch.context = ints.add(step.context, {sequences});
  batch.table_rows = ints.add(table_rows, {sequences});
  batch.block_table = ints.add(table, {sequences, step.max_blocks});
  batch.kv_slots = ints.add(slots, {step.tokens()});
  batch.tiles = ints.add(tiles, {static_cast<int64_t>(tiles.size()) / 2, 2});
  return batch;
}

class LargeOffsetsKvTest : public LargeOffsetsTest {
 protected:
  struct Pool {
    Pool(Backend& backend, int64_t blocks)
        : dtype(backend.compute_dtype()),
          shape_bytes(static_cast<size_t>(blocks * kBlockElements) * dtype_bytes(dtype)),
          keys(backend.allocate(shape_bytes)),
          values(backend.allocate(shape_bytes)),
          layer{keys.view(dtype, {blocks, kHeads, kBlockTokens, kHeadDim}),
                values.view(dtype, {blocks, kHeads, kBlockTokens, kHeadDim})} {}
    DType dtype;
    size_t shape_bytes;
    Buffer keys, values;
    KvLayer layer;
  };

  // Two decoding sequences, of which one is long enough to be split, a chunk and a prompt. In random order, half of the
  // blocks lie beyond one boundary and half beyond the other.
  KvStep far_step() {
    KvStep step{.context = {700, 33, 150, 90}, .rows = {1, 1, 70, 90}, .blocks = {}, .max_blocks = 64};
    for (const int32_t context : step.context) {
      for (int32_t position = 0; position < context; position += kBlockTokens) {
        const int64_t first = (step.blocks.size() % 2 == 0 ? kFar : kFarther) / kBlockElements;
        step.blocks.push_back(static_cast<int32_t>(first + static_cast<int64_t>(step.blocks.size())));
      }
    }
    std::shuffle(step.blocks.begin(), step.blocks.end(), random_);
    return step;
  }

  // Writes the same random cells to block blocks[i] of `far` and to block i of `near`, for each tensor.
  void fill(const std::vector<int32_t>& blocks, const KvLayer& far, Backend& cpu, const KvLayer& near) {
    for (int32_t i = 0; i < static_cast<int32_t>(blocks.size()); ++i) {
      const int32_t block = blocks[static_cast<size_t>(i)];
      for (const auto& [there, here] : {std::pair(far.keys, near.keys), {far.values, near.values}}) {
        const std::vector<float> cells = rounded(normal(kBlockElements));
        store(there.rows(block, block + 1), cells);
        cpu.upload(here.rows(i, i + 1), cells.data());
      }
    }
  }

  void expect_same_cells(const std::vector<int32_t>& blocks, const Tensor& far, const Tensor& near) {
    for (int32_t i = 0; i < static_cast<int32_t>(blocks.size()); ++i) {
      const int32_t block = blocks[static_cast<size_t>(i)];
      const std::vector<float> stored = load(far.rows(block, block + 1));
      EXPECT_TRUE(std::equal(stored.begin(), stored.end(), near.rows(i, i + 1).data<float>()))
          << "block " << block << ", seed " << seed_;
    }
  }

  static std::vector<float> run_on(Backend& cpu, const std::vector<float>& qkv, const KvStep& step,
                                   const KvLayer& layer) {
    const int64_t tokens = step.tokens();
    std::vector<float> out(static_cast<size_t>(tokens * kWidth));
    const Buffer in_buffer = cpu.allocate(qkv.size() * sizeof(float));
    const Buffer out_buffer = cpu.allocate(out.size() * sizeof(float));
    const Tensor in = in_buffer.view(DType::kF32, {tokens, 3 * kWidth});
    cpu.upload(in, qkv.data());
    Ints ints(cpu);
    cpu.attention(in, make_batch(ints, step), layer, out_buffer.view(DType::kF32, {tokens, kWidth}));
    cpu.download(out.data(), out_buffer.view(DType::kF32, {tokens, kWidth}));
    return out;
  }
};
INSTANTIATE_TEST_SUITE_P(Backends, LargeOffsetsKvTest, testing::ValuesIn(backends_under_test()), case_name);

TEST_P(LargeOffsetsKvTest, AttentionEqualsThatOverASmallPool) {
  const KvStep far = far_step();
  const auto count = static_cast<int32_t>(far.blocks.size());
  const int64_t blocks = kFarther / kBlockElements + count;
  if (!has_room(2 * bytes_of(blocks * kBlockElements))) GTEST_SKIP() << why_not_;
  const Pool pool(*backend_, blocks);
  for (const Tensor& tensor : {pool.layer.keys, pool.layer.values}) {  // what a 31-bit or 32-bit offset would reach
    store(tensor.rows(0, count), std::vector<float>(static_cast<size_t>(count * kBlockElements), kNan));
  }
  const auto cpu = make_backend({.threads = 2});
  const Pool small(*cpu, count);
  fill(far.blocks, pool.layer, *cpu, small.layer);
  KvStep near = far;
  std::iota(near.blocks.begin(), near.blocks.end(), 0);

  const int64_t tokens = far.tokens();
  const Array qkv = random({tokens, 3 * kWidth}), out = poisoned({tokens, kWidth});
  Ints ints(*backend_);
  backend_->attention(qkv, make_batch(ints, far), pool.layer, out);
  const std::vector<float> found = out.values(), expected = run_on(*cpu, qkv.values(), near, small.layer);
  for (size_t i = 0; i < found.size(); ++i) {  // the tolerance of backend_attention_test
    expect_near(found[i], static_cast<double>(expected[i]), 4, 8 + 4 * std::sqrt(static_cast<double>(kHeadDim)),
                at(static_cast<int64_t>(i) / kWidth, static_cast<int64_t>(i) % kWidth));
  }
  // Keys and values were stored far out, and nowhere else.
  expect_same_cells(far.blocks, pool.layer.keys, small.layer.keys);
  expect_same_cells(far.blocks, pool.layer.values, small.layer.values);
  for (const Tensor& tensor : {pool.layer.keys, pool.layer.values}) {
    const std::vector<float> low = load(tensor.rows(0, count));
    EXPECT_TRUE(std::all_of(low.begin(), low.end(), [](float value) { return std::isnan(value); }));
  }
}

// ---- Rows of tables and activations

TEST_P(LargeOffsetsTest, RowsOfTables) {
  const int64_t width = 8192, rows = kFarther / width + 8;
  if (!has_room(bytes_of(rows * width))) GTEST_SKIP() << why_not_;
  const Buffer buffer = backend_->allocate(bytes_of(rows * width));
  const Tensor table = buffer.view(element_type(), {rows, width});
  const std::vector<int64_t> wanted{kFar / width - 1, kFar / width + 3, rows - 5, rows - 1};
  std::vector<float> expected;
  store(table.rows(0, 8), std::vector<float>(8 * static_cast<size_t>(width), kNan));
  for (const int64_t row : wanted) {
    const std::vector<float> values = rounded(normal(static_cast<size_t>(width)));
    store(table.rows(row, row + 1), values);
    expected.insert(expected.end(), values.begin(), values.end());
  }
  const auto n = static_cast<int64_t>(wanted.size());
  const Array ids = ints({wanted.begin(), wanted.end()}, {n});
  const Array gathered = poisoned({n, width}), embedded = poisoned({n, width}), copied = poisoned({1, width});
  const Array added = array(std::vector<float>(expected.size(), 0), {n, width});
  backend_->gather_rows(table, ids, gathered);
  EXPECT_EQ(gathered.values(), expected) << "seed " << seed_;
  backend_->embed({.ids = ids, .positions = ids}, table, 0, {}, embedded);
  EXPECT_EQ(embedded.values(), expected) << "seed " << seed_;
  backend_->add_positions(ids, table, added);
  EXPECT_EQ(added.values(), expected) << "seed " << seed_;
  backend_->copy(table.rows(rows - 1, rows), copied);
  EXPECT_TRUE(std::ranges::equal(copied.values(), std::span(expected).last(static_cast<size_t>(width))));
  // And to the far end.
  backend_->copy(copied, table.rows(rows - 7, rows - 6));
  EXPECT_EQ(load(table.rows(rows - 7, rows - 6)), copied.values());
}

// ---- Products

double product(const std::vector<float>& x, const std::vector<float>& w) {
  double sum = 0;
  for (size_t k = 0; k < x.size(); ++k) sum += static_cast<double>(x[k]) * static_cast<double>(w[k]);
  return sum;
}

TEST_P(LargeOffsetsTest, LogitsOfManyRows) {
  const int64_t in = 64, vocab = 50272, rows = kFar / vocab + 100;
  if (!has_room(static_cast<size_t>(rows * vocab) * sizeof(float))) GTEST_SKIP() << why_not_;
  const Buffer buffer = backend_->allocate(static_cast<size_t>(rows * vocab) * sizeof(float));
  const Tensor logits = buffer.view(DType::kF32, {rows, vocab});
  const std::vector<float> w = rounded(normal(static_cast<size_t>(vocab * in)));
  const quant::Weight weight = backend_->load_weight({quant::QuantFormat::kF32, vocab, in, w.data()});
  const Array x = random({rows, in});
  backend_->linear(x, weight, {}, Activation::kNone, logits);
  std::vector<int32_t> targets(static_cast<size_t>(rows), -1);
  const Array logprobs = poisoned_f32({rows});
  targets.back() = 50'000;
  backend_->token_logprobs(logits, ints(targets, {rows}), vocab, logprobs);
  for (const int64_t row : {int64_t{0}, kFar / vocab - 1, kFar / vocab, kFar / vocab + 1, rows - 1}) {
    const std::vector<float> found = load(logits.rows(row, row + 1)), left = load(x.view.rows(row, row + 1));
    for (const int64_t column : {int64_t{0}, pick(1, vocab - 2), vocab - 1}) {
      const std::vector<float> right(w.begin() + column * in, w.begin() + (column + 1) * in);
      EXPECT_NEAR(found[static_cast<size_t>(column)], product(left, right), 1e-3) << at(row, column) << " " << seed_;
    }
  }
  const std::vector<float> last = load(logits.rows(rows - 1, rows));
  double sum = 0;
  for (const float logit : last) sum += std::exp(static_cast<double>(logit));
  EXPECT_NEAR(logprobs.values().back(), static_cast<double>(last[50'000]) - std::log(sum), 1e-3) << "seed " << seed_;
}

TEST_P(LargeOffsetsTest, ARowByALargeWeight) {
  const int64_t in = 4096, out = kFar / in + 64;
  const RandomBlock block{
      .key = seed_, .reach = 1, .dtype = element_type(), .runs = {{0, out}}, .cols = in, .whole_cols = in};
  if (!has_room(bytes_of(out * in))) GTEST_SKIP() << why_not_;
  const quant::Weight weight = backend_->random_weight(block, quant::QuantFormat::kF16);
  for (const int64_t rows : {1, 4, 40}) {  // few and many rows may use different kernels
    const Array x = random({rows, in}), y = poisoned_f32({rows, out});
    backend_->linear(x, weight, {}, Activation::kNone, y);
    const std::vector<float> left = load(x.view.rows(rows - 1, rows)), found = load(y.view.rows(rows - 1, rows));
    for (const int64_t column : {int64_t{0}, kFar / in - 1, kFar / in, out - 1}) {
      RandomBlock row = block;
      row.runs = {{column, 1}};
      std::vector<std::byte> bytes(bytes_of(in));
      fill_random(row, bytes);
      std::vector<float> right(static_cast<size_t>(in));
      convert_to_f32(bytes.data(), element_type(), right.data(), right.size());
      EXPECT_NEAR(found[static_cast<size_t>(column)], product(left, right), 0.05) << at(rows, column) << " " << seed_;
    }
  }
}

}  // namespace large_offsets_test
}  // namespace optserve::backend

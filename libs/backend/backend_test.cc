#include "backend/backend.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "backend/backend_fixture.h"
#include "base/error.h"

namespace optserve::backend {
namespace backend_test {

INSTANTIATE_TEST_SUITE_P(Backends, BackendTest, testing::ValuesIn(backends_under_test()), case_name);

std::vector<double> layer_norm_oracle(const std::vector<double>& x, const std::vector<float>& gamma,
                                      const std::vector<float>& beta) {
  const auto n = static_cast<double>(x.size());
  const double mean = std::accumulate(x.begin(), x.end(), 0.0) / n;
  double variance = 0;
  for (const double value : x) variance += (value - mean) * (value - mean) / n;
  std::vector<double> result(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    result[i] =
        (x[i] - mean) / std::sqrt(variance + 1e-5) * static_cast<double>(gamma[i]) + static_cast<double>(beta[i]);
  }
  return result;
}

TEST(MakeBackend, RefusesWhatItCannotDo) {
  EXPECT_THROW(make_backend({.compute_dtype = DType::kF16}), Error);
  EXPECT_THROW(make_backend({.device = {DeviceKind::kCpu, 1}}), Error);
}

TEST_P(BackendTest, DescribesItself) { EXPECT_FALSE(backend_->description().empty()); }

TEST_P(BackendTest, BytesComeBack) {
  const std::vector<float> values = normal(15);
  const Array x = array(values, {3, 5}, DType::kF32);
  EXPECT_EQ(x.values(), values);
  const Array y = poisoned_f32({3, 5});
  backend_->copy(x, y);
  EXPECT_EQ(y.values(), values);
  backend_->fill_zero(y.view.rows(1, 2));
  const std::vector<float> zeroed = y.values();
  for (size_t i = 0; i < 15; ++i) EXPECT_EQ(zeroed[i], i / 5 == 1 ? 0.0f : values[i]);
  EXPECT_NE(backend_->allocate(0).data(), nullptr);
}

TEST_P(BackendTest, CopyFollowsStrides) {
  const Array x = random({4, 6}), y = poisoned({4, 3});
  backend_->copy(x.view.columns(2, 5), y);
  const auto source = x.values(), found = y.values();
  for (size_t i = 0; i < 12; ++i) EXPECT_EQ(found[i], source[i / 3 * 6 + 2 + i % 3]);
}

TEST_P(BackendTest, AnImpossibleAllocationIsAnError) {
  EXPECT_THROW((void)backend_->allocate(size_t{1} << 62), Error);
  EXPECT_THROW((void)backend_->allocate(~size_t{0}), Error);
}

TEST_P(BackendTest, EmbedsOnlyItsOwnIds) {
  for (const int64_t embed : {1, 3, 17, 64, 3000}) {
    const Array table = random({5, embed}), places = random({7, embed});
    const Array ids = ints({10, 14, 9, 15, 12, -1}, {6}), positions = ints({6, 0, 2, 2, 5, -1}, {6});
    const StepEntry entry{.ids = ids, .positions = positions};
    const auto source = table.values(), place = places.values();
    const int64_t rows[] = {0, 4, -1, -1, 2, -1}, position_rows[] = {6, 0, 2, 2, 5, -1};
    for (const bool adds_positions : {false, true}) {
      const Array out = poisoned({6, embed});
      backend_->embed(entry, table, 10, adds_positions ? places.view : Tensor(), out);
      const auto found = out.values();
      for (int64_t i = 0; i < 6 * embed; ++i) {
        const auto at_row = [&](const std::vector<float>& values, int64_t row) {
          return row < 0 ? 0.0 : static_cast<double>(values[static_cast<size_t>(row * embed + i % embed)]);
        };
        const double token = at_row(source, rows[i / embed]);
        const double addend = adds_positions ? at_row(place, position_rows[i / embed]) : 0;
        expect_near(found[static_cast<size_t>(i)], token + addend, adds_positions ? std::abs(token + addend) : 0, 1,
                    at(i / embed, i % embed));
      }
    }
  }
}

TEST_P(BackendTest, AddsPositions) {
  const Array table = random({4, 17}), x = random({3, 17});
  const auto before = x.values(), rows = table.values();
  const int32_t positions[] = {3, 0, 3};
  backend_->add_positions(ints({3, 0, 3}, {3}), table, x);
  const auto found = x.values();
  for (size_t i = 0; i < found.size(); ++i) {
    const float position = rows[static_cast<size_t>(positions[i / 17]) * 17 + i % 17];
    expect_near(found[i], static_cast<double>(before[i]) + static_cast<double>(position),
                std::abs(static_cast<double>(before[i])) + std::abs(static_cast<double>(position)), 1, "position");
  }
}

TEST_P(BackendTest, LayerNormMatchesTheFormula) {
  for (const int64_t rows : {1, 3, 17}) {
    for (const int64_t hidden : {1, 3, 17, 64, 768, 1001}) {
      // The offset is far from zero, so that a variance computed as E[x^2] - E[x]^2 would be wrong.
      std::vector<float> values = normal(count({rows, hidden}));
      for (float& value : values) value += 50;
      const Array x = array(values, {rows, hidden}), gamma = random({hidden}), beta = random({hidden});
      const Array out = poisoned({rows, hidden});
      backend_->layer_norm(x, gamma, beta, out);
      const auto source = x.values(), g = gamma.values(), b = beta.values(), found = out.values();
      for (int64_t row = 0; row < rows; ++row) {
        const std::vector<double> line(source.begin() + row * hidden, source.begin() + (row + 1) * hidden);
        const auto expected = layer_norm_oracle(line, g, b);
        for (int64_t i = 0; i < hidden; ++i) {
          const auto column = static_cast<size_t>(i);
          // The mean is off by some roundings of 50, and the error of the result scales with gamma.
          expect_near(found[static_cast<size_t>(row * hidden) + column], expected[column],
                      100 * (std::abs(static_cast<double>(g[column])) + 1), 20, at(row, i));
        }
      }
      backend_->layer_norm(x, gamma, beta, x);
      EXPECT_EQ(x.values(), found) << "in place";
    }
  }
}

TEST_P(BackendTest, ResidualAddsBiasOnce) {
  for (const bool with_bias : {false, true}) {
    const Array x = random({19, 33}), residual = random({19, 33}), bias = random({33});
    const auto a = x.values(), b = residual.values(), c = bias.values();
    backend_->add_bias_residual(x, with_bias ? bias.view : Tensor(), residual);
    const auto found = residual.values();
    for (size_t i = 0; i < found.size(); ++i) {
      const double added = with_bias ? static_cast<double>(c[i % 33]) : 0.0;
      expect_near(found[i], static_cast<double>(a[i]) + static_cast<double>(b[i]) + added, 10, 3, "residual");
    }
  }
}

TEST_P(BackendTest, FusedResidualNormEqualsItsParts) {
  for (const bool with_bias : {false, true}) {
    const Array x = random({9, 80}), bias = random({80}), gamma = random({80}), beta = random({80});
    const std::vector<float> start = normal(count({9, 80}));
    const Array one = array(start, {9, 80}), two = array(start, {9, 80});
    const Array fused = poisoned({9, 80}), parts = poisoned({9, 80});
    const Tensor maybe_bias = with_bias ? bias.view : Tensor();
    backend_->add_bias_residual_norm(x, maybe_bias, one, gamma, beta, fused);
    backend_->add_bias_residual(x, maybe_bias, two);
    backend_->layer_norm(two, gamma, beta, parts);
    EXPECT_EQ(one.values(), two.values());
    const auto a = fused.values(), b = parts.values();
    for (size_t i = 0; i < a.size(); ++i) expect_near(a[i], static_cast<double>(b[i]), 20, 4, "norm");
  }
}

// On a GPU, a different kernel is used for very many rows.
TEST_P(BackendTest, NormsOfManyRowsHaveTheBitsOfFew) {
  constexpr int64_t kRows = 2800, kWidth = 760, kFew = 100;
  const Array x = random({kRows, kWidth}), bias = random({kWidth}), gamma = random({kWidth}), beta = random({kWidth});
  const std::vector<float> start = normal(count({kRows, kWidth}));
  const Array whole = array(start, {kRows, kWidth}), parts = array(start, {kRows, kWidth});
  const Array found = poisoned({kRows, kWidth}), expected = poisoned({kRows, kWidth});
  backend_->add_bias_residual_norm(x, bias, whole, gamma, beta, found);
  for (int64_t row = 0; row < kRows; row += kFew) {
    const auto few = [&](const Array& array) { return array.view.rows(row, row + kFew); };
    backend_->add_bias_residual_norm(few(x), bias, few(parts), gamma, beta, few(expected));
  }
  EXPECT_EQ(whole.values(), parts.values());
  EXPECT_EQ(found.values(), expected.values());
  backend_->layer_norm(whole, gamma, beta, whole);
  EXPECT_EQ(whole.values(), found.values());
}

// Rows of several widths, for which one or several blocks of threads share a row.
TEST_P(BackendTest, EmbeddingTakesIdsFromThePlanOrTheHistory) {
  for (const int64_t embed : {4, 3000}) {
    const Array history = ints({0, 1, 2, 3, 4, 5}, {2, 3}), ids = ints({-7, -7, -7, -7}, {4});
    const Array new_ids = ints({-1, 7, -1, 6}, {4}), slots = ints({1, 0, -1, 1}, {4});
    const Array positions = ints({2, 1, -1, 0}, {4}), table = random({8, embed}), out = poisoned({4, embed});
    backend_->embed({.ids = ids, .positions = positions, .new_ids = new_ids, .slots = slots, .history = history}, table,
                    0, {}, out);
    EXPECT_EQ(ids.ints(), (std::vector<int32_t>{5, 7, -1, 6}));
    EXPECT_EQ(history.ints(), (std::vector<int32_t>{0, 7, 2, 6, 4, 5}));
    const auto source = table.values(), found = out.values();
    const int64_t rows[] = {5, 7, -1, 6};
    for (int64_t i = 0; i < 4 * embed; ++i) {
      const int64_t row = rows[i / embed];
      const float expected = row < 0 ? 0.0f : source[static_cast<size_t>(row * embed + i % embed)];
      ASSERT_EQ(found[static_cast<size_t>(i)], expected) << at(i / embed, i % embed);
    }
  }
}

// More updates than a block has threads.
TEST_P(BackendTest, EmbeddingUpdatesTheBlockTable) {
  const Array ids = ints({0}, {1}), positions = ints({0}, {1}), table = random({1, 3}), out = poisoned({1, 3});
  const Array blocks = ints({0, 1, 2, 3, 4, 5}, {2, 3});
  const auto update = [&](const Array& updates) {
    backend_->embed({.ids = ids, .positions = positions, .table_updates = updates, .block_table = blocks}, table, 0, {},
                    out);
  };
  update(ints({1, 2, 50, -1, 9, 9, 0, 0, 7}, {3, 3}));
  EXPECT_EQ(blocks.ints(), (std::vector<int32_t>{7, 1, 2, 3, 4, 50}));
  std::vector<int32_t> many(3 * 1000, -1);
  std::ranges::copy(std::vector<int32_t>{0, 1, 60}, many.end() - 3);
  update(ints(many, {1000, 3}));
  EXPECT_EQ(blocks.ints(), (std::vector<int32_t>{7, 60, 2, 3, 4, 50}));
}

TEST_P(BackendTest, RandomTablesHoldTheSameBitsEverywhere) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const RandomBlock block{.key = 77,
                            .centre = 0.5f,
                            .reach = 0.3f,
                            .dtype = dtype,
                            .runs = {{2, 3}, {9, 1}, {1, 5}},
                            .first_col = 3,
                            .cols = 37,
                            .whole_cols = 41};
    std::vector<std::byte> host(static_cast<size_t>(block.elements()) * dtype_bytes(dtype));
    fill_random(block, host);
    std::vector<float> expected(static_cast<size_t>(block.elements()));
    convert_to_f32(host.data(), dtype, expected.data(), expected.size());
    std::vector<std::byte> rounded(expected.size() * dtype_bytes(backend_->compute_dtype()));
    convert_from_f32(expected.data(), backend_->compute_dtype(), rounded.data(), expected.size());
    convert_to_f32(rounded.data(), backend_->compute_dtype(), expected.data(), expected.size());
    Array table{backend_.get(), backend_->random_table(block), {}};
    table.view = table.buffer.view(backend_->compute_dtype(), {block.rows(), block.cols});
    EXPECT_EQ(table.values(), expected) << dtype_name(dtype);
    // A product with the unit matrix shows the weight itself.
    std::vector<float> unit(37 * 37, 0.0f);
    for (size_t i = 0; i < 37; ++i) unit[i * 37 + i] = 1;
    const Array x = array(unit, {37, 37}), y = poisoned_f32({37, block.rows()});
    backend_->linear(x, backend_->random_weight(block, *quant::plain_format(dtype)), {}, Activation::kNone, y);
    const auto found = y.values();
    for (size_t i = 0; i < found.size(); ++i) {
      const auto rows = static_cast<size_t>(block.rows());
      if (dtype == DType::kF32 && backend_->compute_dtype() == DType::kF32) {
        ASSERT_FLOAT_EQ(found[i], expected[i % rows * 37 + i / rows]);
      } else {
        ASSERT_EQ(found[i], expected[i % rows * 37 + i / rows]);
      }
    }
  }
}

TEST_P(BackendTest, CopiesToTheHostAreCompleteAfterTheirMark) {
  const Array x = random({300, 70});
  const Buffer host = backend_->allocate_host(x.view.bytes());
  backend_->copy_to_host(host.data(), x);
  backend_->wait(backend_->mark());
  std::vector<std::byte> expected(x.view.bytes());
  backend_->download(expected.data(), x);
  EXPECT_EQ(std::memcmp(host.data(), expected.data(), expected.size()), 0);
}

TEST_P(BackendTest, PaddingCoversTheRows) {
  int64_t before = 0;
  for (int64_t rows = 1; rows <= 3000; ++rows) {
    const int64_t padded = backend_->padded_rows(rows);
    EXPECT_GE(padded, rows);
    EXPECT_GE(padded, before);
    before = padded;
  }
}

TEST_P(BackendTest, GathersRows) {
  const Array x = random({5, 17}), out = poisoned({3, 17});
  backend_->gather_rows(x, ints({4, 0, 4}, {3}), out);
  const auto source = x.values(), found = out.values();
  const size_t rows[] = {4, 0, 4};
  for (size_t i = 0; i < found.size(); ++i) EXPECT_EQ(found[i], source[rows[i / 17] * 17 + i % 17]);
}

TEST_P(BackendTest, InterleavesTheBlocksOfRanks) {
  for (const int64_t world : {1, 2, 4}) {
    const Array in = random({world, 3, 5}), out = poisoned({3, world * 5});
    backend_->interleave_ranks(in, out);
    const auto source = in.values(), found = out.values();
    for (int64_t i = 0; i < world * 15; ++i) {
      const int64_t row = i / (world * 5), rank = i % (world * 5) / 5, column = i % 5;
      EXPECT_EQ(found[static_cast<size_t>(i)], source[static_cast<size_t>((rank * 3 + row) * 5 + column)]);
    }
  }
}

TEST_P(BackendTest, CapturedBodiesSeeNewInput) {
  const Array x = random({2, 3}), y = poisoned({2, 3});
  for (int i = 0; i < 3; ++i) {
    const std::vector<float> values = normal(6);
    const Array source = array(values, {2, 3});
    backend_->copy(source, x);
    backend_->capture_or_run(7, [&] { backend_->copy(x, y); });
    EXPECT_EQ(y.values(), source.values());
  }
}

TEST_P(BackendTest, OperationsOnNoRowsWriteNothing) {
  const Array x = random({2, 8}), y = random({2, 8}), gamma = random({8});
  const std::vector<float> before = y.values();
  const Tensor no_x = x.view.rows(1, 1), no_y = y.view.rows(1, 1);
  backend_->layer_norm(no_x, gamma, gamma, no_y);
  backend_->add_bias_residual(no_x, gamma, no_y);
  backend_->copy(no_x, no_y);
  const quant::Weight weight = backend_->load_weight({quant::QuantFormat::kF32, 8, 8, normal(64).data()});
  backend_->linear(no_x, weight, {}, Activation::kNone, no_y);
  EXPECT_EQ(y.values(), before);
}

TEST_P(BackendTest, MismatchedArgumentsAbort) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const Array x = random({2, 8}), gamma = random({7}), out = poisoned({2, 8});
  EXPECT_DEATH(backend_->layer_norm(x, gamma, gamma, out), "layer_norm: gamma: hidden: 8 != 7");
  EXPECT_DEATH(backend_->layer_norm(x.view.columns(0, 7), gamma, gamma, out), "layer_norm: x: expected contiguous");
  EXPECT_DEATH(backend_->copy(x, random({8, 2})), "copy: .*\\[2, 8\\] to .*\\[8, 2\\]");
  EXPECT_DEATH(backend_->gather_rows(x, random({2}), out), "gather_rows: rows: expected I32");
  const quant::Weight weight = backend_->load_weight({quant::QuantFormat::kF32, 8, 8, normal(64).data()});
  EXPECT_DEATH(backend_->linear(random({2, 9}), weight, {}, Activation::kNone, out), "linear: x: in: 8 != 9");
  const Array ids = ints({0, 1}, {2}), one = ints({0}, {1});
  EXPECT_DEATH(backend_->embed({.ids = ids, .positions = one}, x, 0, {}, out), "embed: positions: num_tokens: 2 != 1");
  EXPECT_DEATH(backend_->embed({.ids = ids, .positions = ids}, x, 0, random({2, 7}), out),
               "embed: position_table: embed: 8 != 7");
  const Array logits = poisoned_f32({2, 8}), logprobs = poisoned_f32({2});
  EXPECT_DEATH(backend_->token_logprobs(logits, ints({1, 2}, {2}), 9, logprobs), "more real ids than logits");
  EXPECT_DEATH(backend_->token_logprobs(logits, ints({1, 2}, {2}), 8, logprobs, {21, {}, {}}), "number of best ids");
  EXPECT_DEATH(backend_->token_logprobs(logits, ints({1, 2}, {2}), 8, logprobs, {2, ints({1, 2}, {2}).view, logprobs}),
               "best ids");
  if (backend_->device().kind != DeviceKind::kCpu) return;  // only the CPU reads positions on the host
  EXPECT_DEATH(backend_->add_positions(ints({1, 2}, {2}), random({2, 8}), x), "position outside the table");
}

}  // namespace backend_test
}  // namespace optserve::backend

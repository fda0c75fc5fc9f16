// Speed of the backend's operations. Counters: FLOP/s of the arithmetic, bytes/s of what has to be read.
#include <benchmark/benchmark.h>
#include <cblas.h>

#include <random>
#include <vector>

#include "backend/backend.h"

namespace optserve::backend {
namespace {

Backend& backend() {
  static const std::unique_ptr<Backend> instance = make_backend({});
  return *instance;
}

std::vector<float> random_values(size_t count) {
  std::mt19937 generator(7);
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

Tensor view(std::vector<float>& values, std::initializer_list<int64_t> shape) {
  return Tensor(values.data(), DType::kF32, shape);
}

void rate(benchmark::State& state, const char* name, double amount, double base = 1000) {
  state.counters[name] = benchmark::Counter(amount, benchmark::Counter::kIsIterationInvariantRate,
                                            base == 1024 ? benchmark::Counter::kIs1024 : benchmark::Counter::kIs1000);
}

constexpr DType kStored[] = {DType::kF32, DType::kF16, DType::kBF16};

// Arguments: rows, inputs, outputs, index into kStored.
void linear(benchmark::State& state) {
  const int64_t rows = state.range(0), in = state.range(1), out = state.range(2);
  const DType dtype = kStored[state.range(3)];
  std::vector<float> x = random_values(static_cast<size_t>(rows * in));
  std::vector<float> y(static_cast<size_t>(rows * out));
  const std::vector<float> values = random_values(static_cast<size_t>(in * out));
  std::vector<std::byte> stored(values.size() * dtype_bytes(dtype));
  convert_from_f32(values.data(), dtype, stored.data(), values.size());
  const quant::Weight weight = backend().load_weight({*quant::plain_format(dtype), out, in, stored.data()});
  for (auto _ : state) {
    backend().linear(view(x, {rows, in}), weight, {}, Activation::kNone, view(y, {rows, out}));
    benchmark::ClobberMemory();
  }
  rate(state, "FLOP/s", 2.0 * static_cast<double>(rows * in * out));
  rate(state, "bytes/s", static_cast<double>(stored.size()));
  state.SetLabel(std::string(dtype_name(dtype)));
}

// The same product by OpenBLAS, for comparison.
void openblas_sgemm(benchmark::State& state) {
  const int rows = static_cast<int>(state.range(0)), in = static_cast<int>(state.range(1)),
            out = static_cast<int>(state.range(2));
  std::vector<float> x = random_values(static_cast<size_t>(rows * in));
  const std::vector<float> w = random_values(static_cast<size_t>(in * out));
  std::vector<float> y(static_cast<size_t>(rows * out));
  for (auto _ : state) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, out, in, 1.0f, x.data(), in, w.data(), in, 0.0f,
                y.data(), out);
    benchmark::ClobberMemory();
  }
  rate(state, "FLOP/s", 2.0 * rows * in * out);
  rate(state, "bytes/s", 4.0 * in * out);
}

void linear_shapes(benchmark::internal::Benchmark* bench) {
  for (const auto& [in, out] : {std::pair{768, 768}, {768, 3072}, {3072, 768}, {768, 50272}}) {
    for (const int rows : {1, 8, 64}) bench->Args({rows, in, out, 0});
  }
}
BENCHMARK(linear)->Apply(linear_shapes)->MeasureProcessCPUTime()->UseRealTime();
BENCHMARK(linear)
    ->MeasureProcessCPUTime()
    ->UseRealTime()
    ->Args({1, 768, 3072, 1})
    ->Args({64, 768, 3072, 1})
    ->Args({1, 768, 3072, 2});
BENCHMARK(openblas_sgemm)->Apply(linear_shapes)->MeasureProcessCPUTime()->UseRealTime();

// Arguments: sequences, context of each, rows of each.
void attention(benchmark::State& state) {
  const int64_t sequences = state.range(0), context = state.range(1), rows = state.range(2);
  constexpr int64_t kHeads = 12, kHeadDim = 64, kBlockTokens = 16;
  const int64_t max_blocks = (context + kBlockTokens - 1) / kBlockTokens;
  const int64_t blocks = sequences * max_blocks;
  std::vector<float> cache = random_values(static_cast<size_t>(blocks * kBlockTokens * kHeads * kHeadDim));
  std::vector<float> values = cache;
  const std::initializer_list<int64_t> shape{blocks, kHeads, kBlockTokens, kHeadDim};
  const KvLayer layer{view(cache, shape), view(values, shape)};
  std::vector<float> qkv = random_values(static_cast<size_t>(sequences * rows * 3 * kHeads * kHeadDim));
  std::vector<float> out(static_cast<size_t>(sequences * rows * kHeads * kHeadDim));
  std::vector<int32_t> table(static_cast<size_t>(blocks)), begin, contexts, table_rows,
      slots(static_cast<size_t>(sequences * rows));
  for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<int32_t>(i * 7919 % table.size());
  for (int64_t s = 0; s <= sequences; ++s) begin.push_back(static_cast<int32_t>(s * rows));
  for (int64_t s = 0; s < sequences; ++s) table_rows.push_back(static_cast<int32_t>(s));
  contexts.assign(static_cast<size_t>(sequences), static_cast<int32_t>(context));
  AttentionBatch batch;
  batch.num_sequences = sequences;
  batch.row_begin = Tensor(begin.data(), DType::kI32, {sequences + 1});
  batch.context = Tensor(contexts.data(), DType::kI32, {sequences});
  batch.table_rows = Tensor(table_rows.data(), DType::kI32, {sequences});
  batch.block_table = Tensor(table.data(), DType::kI32, {sequences, max_blocks});
  batch.kv_slots = Tensor(slots.data(), DType::kI32, {sequences * rows});
  batch.tiles = Tensor(nullptr, DType::kI32, {0, 2});  // the CPU's attention does not read them
  for (auto _ : state) {
    backend().attention(view(qkv, {sequences * rows, 3 * kHeads * kHeadDim}), batch, layer,
                        view(out, {sequences * rows, kHeads * kHeadDim}));
    benchmark::ClobberMemory();
  }
  const auto pairs = static_cast<double>(sequences) *
                     (static_cast<double>(rows * context) - static_cast<double>(rows * (rows - 1)) / 2);
  rate(state, "FLOP/s", 4.0 * pairs * kHeads * kHeadDim);
  rate(state, "bytes/s", static_cast<double>(sequences * context) * 2 * kHeads * kHeadDim * sizeof(float));
}
BENCHMARK(attention)
    ->MeasureProcessCPUTime()
    ->UseRealTime()
    ->Args({1, 2048, 1})
    ->Args({8, 512, 1})
    ->Args({64, 128, 1})
    ->Args({1, 64, 1})
    ->Args({1, 512, 512});

// Arguments: rows, kind of sampling.
void sample(benchmark::State& state) {
  constexpr int64_t kVocab = 50272;
  const int64_t rows = state.range(0);
  std::vector<float> logits = random_values(static_cast<size_t>(rows * kVocab));
  for (float& logit : logits) logit *= 3;  // the spread of a language model's logits
  std::vector<int32_t> ids(static_cast<size_t>(rows));
  std::vector<float> logprobs(ids.size());
  constexpr int64_t kHistory = 512;
  std::vector<TokenId> history(static_cast<size_t>(rows * (kHistory + 1)));
  for (size_t i = 0; i < history.size(); ++i) history[i] = static_cast<TokenId>(i * 91 % 50272);
  std::vector<sampling::PackedSampleRow> wanted(ids.size());
  static constexpr const char* kNames[] = {"greedy", "whole distribution", "top-k 50", "top-p 0.9",
                                           "penalties, top-k, top-p"};
  sampling::SamplingParams params;
  params.temperature = state.range(1) == 0 ? 0.0f : 0.8f;
  if (state.range(1) == 2 || state.range(1) == 4) params.top_k = 50;
  if (state.range(1) >= 3) params.top_p = 0.9f;
  if (state.range(1) == 4) params.repetition_penalty = 1.2f;
  if (state.range(1) == 4) params.frequency_penalty = 0.1f;
  for (size_t i = 0; i < wanted.size(); ++i) {
    params.seed = i;
    wanted[i] = pack(params, false, static_cast<int32_t>(i), kHistory, 128);
  }
  SampleBatch batch;
  batch.rows = Tensor(wanted.data(), DType::kU8, {rows, sizeof(sampling::PackedSampleRow)});
  batch.features = sampling::sample_features(params, false);
  batch.history = Tensor(history.data(), DType::kI32, {rows, kHistory + 1});
  batch.vocab_real = 50265;
  for (auto _ : state) {
    for (sampling::PackedSampleRow& row : wanted) ++row.seed;
    backend().sample(view(logits, {rows, kVocab}), batch,
                     {.ids = Tensor(ids.data(), DType::kI32, {rows}), .logprobs = view(logprobs, {rows})});
  }
  rate(state, "tokens/s", static_cast<double>(rows));
  state.SetLabel(kNames[state.range(1)]);
}
BENCHMARK(sample)->MeasureProcessCPUTime()->UseRealTime()->ArgsProduct({{1, 64}, {0, 1, 2, 3, 4}});

void layer_norm(benchmark::State& state) {
  const int64_t rows = state.range(0), hidden = state.range(1);
  std::vector<float> x = random_values(static_cast<size_t>(rows * hidden)),
                     gamma = random_values(static_cast<size_t>(hidden));
  std::vector<float> out(x.size());
  for (auto _ : state) {
    backend().layer_norm(view(x, {rows, hidden}), view(gamma, {hidden}), view(gamma, {hidden}),
                         view(out, {rows, hidden}));
    benchmark::ClobberMemory();
  }
  rate(state, "bytes/s", 2.0 * static_cast<double>(x.size()) * sizeof(float));
}
BENCHMARK(layer_norm)->MeasureProcessCPUTime()->UseRealTime()->Args({1, 768})->Args({64, 768})->Args({64, 4096});

}  // namespace
}  // namespace optserve::backend

// The speed of quantising and dequantising. Bytes are those of the weights in fp16, as the converter reads or writes
// them.
#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "quant/quantise.h"

namespace optserve::quant {
namespace {

constexpr int64_t kIn = 4096;
constexpr int64_t kRows = 256;

std::vector<std::byte> half_weights() {
  std::mt19937 generator(7);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> values(static_cast<size_t>(kIn * kRows));
  for (float& value : values) value = normal(generator);
  std::vector<std::byte> halves(values.size() * 2);
  convert_from_f32(values.data(), DType::kF16, halves.data(), values.size());
  return halves;
}

void finish(benchmark::State& state, const Quantisation& how) {
  state.SetBytesProcessed(state.iterations() * kIn * kRows * 2);
  state.SetLabel(std::string(quantisation_name(how)));
}

const char* const kNames[] = {"int8", "int8-mse", "fp8", "int4"};

void quantise(benchmark::State& state) {
  const Quantisation how = *find_quantisation(kNames[state.range(0)]);
  const std::vector<std::byte> halves = half_weights();
  std::vector<float> row(kIn);
  std::vector<std::byte> values(static_cast<size_t>(elements_per_row(how.format, kIn)));
  std::vector<float> scales(static_cast<size_t>(scales_per_row(how.format, kIn)));
  for (auto _ : state) {
    for (int64_t r = 0; r < kRows; ++r) {
      convert_to_f32(halves.data() + r * kIn * 2, DType::kF16, row.data(), row.size());
      quantise_rows(how, row, kIn, values, scales);
      benchmark::DoNotOptimize(values.data());
      benchmark::ClobberMemory();
    }
  }
  finish(state, how);
}
BENCHMARK(quantise)->DenseRange(0, 3);

void dequantise(benchmark::State& state) {
  const Quantisation how = *find_quantisation(kNames[state.range(0)]);
  std::vector<float> row(kIn, 0.5f);
  std::vector<std::byte> values(static_cast<size_t>(elements_per_row(how.format, kIn)));
  std::vector<float> scales(static_cast<size_t>(scales_per_row(how.format, kIn)));
  std::vector<std::byte> halves(kIn * 2);
  quantise_rows(how, row, kIn, values, scales);
  for (auto _ : state) {
    for (int64_t r = 0; r < kRows; ++r) {
      dequantise_rows(how.format, values, scales, kIn, row);
      convert_from_f32(row.data(), DType::kF16, halves.data(), row.size());
      benchmark::DoNotOptimize(halves.data());
      benchmark::ClobberMemory();
    }
  }
  finish(state, how);
}
BENCHMARK(dequantise)->DenseRange(0, 3);

}  // namespace
}  // namespace optserve::quant

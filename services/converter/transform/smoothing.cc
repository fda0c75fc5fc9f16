#include "converter/transform/smoothing.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/hex.h"
#include "base/input_check.h"
#include "base/sha256.h"

namespace optserve::converter {
namespace {

using model_spec::layer_tensor_name;
using model_spec::OptConfig;
using model_spec::TensorSpec;

constexpr uint64_t kRangesBytesMax = 256 << 20;
constexpr double kFactorMin = 0x1p-10, kFactorMax = 0x1p10;

std::vector<float> column_maxima(const WeightRows& source, const TensorSpec& spec) {
  std::vector<float> largest(static_cast<size_t>(spec.cols));
  WideRows wide(source);
  for (int64_t row = 0; row < spec.rows;) {
    const int64_t count = std::min(rows_per_piece(spec), spec.rows - row);
    const std::span<const float> piece = wide.read(spec, row, count);
    for (size_t i = 0; i < piece.size(); ++i) {
      float& column = largest[i % largest.size()];
      column = std::max(column, std::abs(piece[i]));
    }
    row += count;
  }
  return largest;
}

// The output of a norm after a block is the residual stream as well, so dividing one would divide the other.
bool can_smooth(const model_spec::OptConfig& config, size_t matrix) {
  return config.norm_before || matrix == kOutMatrix || matrix == kDownMatrix;
}

std::string digest_of(const CagedModel& source, DType dtype) {
  return vectors_digest(source.config(), [&](const TensorSpec& spec) {
    WideRows rows(source);
    const std::span<const float> wide = rows.read(spec, 0, spec.rows);
    std::vector<std::byte> rounded(wide.size() * dtype_bytes(dtype));
    convert_from_f32(wide.data(), dtype, rounded.data(), wide.size());
    return rounded;
  });
}

Status check_smoothing(const ConvertOptions& options) {
  if (Status status = check_range("smooth-alpha", options.smooth_alpha, 0, 1); !status.ok()) return status;
  return ok_status();
}

}  // namespace

std::vector<float> smoothing_factors(std::span<const float> inputs, std::span<const float> columns, double alpha) {
  check_eq(inputs.size(), columns.size(), "smoothing_factors: channels");
  std::vector<float> factors(inputs.size(), 1.0f);
  for (size_t j = 0; j < factors.size(); ++j) {
    if (!(inputs[j] > 0 && columns[j] > 0 && std::isfinite(inputs[j]) && std::isfinite(columns[j]))) continue;
    const double factor = std::pow(inputs[j], alpha) / std::pow(columns[j], 1 - alpha);
    factors[j] = static_cast<float>(std::clamp(factor, kFactorMin, kFactorMax));
  }
  return factors;
}

SmoothedRows::SmoothedRows(const WeightRows& source, std::vector<LayerFactors> layers)
    : source_(source), layers_(std::move(layers)) {
  check_eq(static_cast<int64_t>(layers_.size()), config().num_layers, "SmoothedRows: layers");
  for (size_t layer = 0; layer < layers_.size(); ++layer) change_layer(static_cast<int64_t>(layer), layers_[layer]);
}

void SmoothedRows::add(const std::string& name, const Change& change) {
  const auto is_empty = [](const std::vector<float>* factors) { return factors == nullptr || factors->empty(); };
  if (!is_empty(change.columns) || !is_empty(change.divisors)) changes_.emplace(name, change);
}

void SmoothedRows::change_layer(int64_t layer, const LayerFactors& factors) {
  const int64_t v_rows = 2 * config().hidden;  // q and k lie before them
  const auto name = [&](const char* leaf) { return layer_tensor_name(layer, leaf); };
  for (const char* leaf : {"attention_norm.weight", "attention_norm.bias"}) {
    add(name(leaf), {nullptr, &factors[kQkvMatrix]});
  }
  add(name("attention.qkv.weight"), {&factors[kQkvMatrix], &factors[kOutMatrix], v_rows});
  add(name("attention.qkv.bias"), {nullptr, &factors[kOutMatrix], v_rows});
  add(name("attention.out.weight"), {&factors[kOutMatrix], nullptr});
  for (const char* leaf : {"ffn_norm.weight", "ffn_norm.bias"}) add(name(leaf), {nullptr, &factors[kUpMatrix]});
  add(name("ffn.up.weight"), {&factors[kUpMatrix], &factors[kDownMatrix]});
  add(name("ffn.up.bias"), {nullptr, &factors[kDownMatrix]});
  add(name("ffn.down.weight"), {&factors[kDownMatrix], nullptr});
}

DType SmoothedRows::dtype(const TensorSpec& spec) const {
  return changes_.contains(spec.name) ? DType::kF32 : source_.dtype(spec);
}

void SmoothedRows::read_rows(const TensorSpec& spec, int64_t row, int64_t count, std::span<std::byte> out) const {
  const auto found = changes_.find(spec.name);
  if (found == changes_.end()) return source_.read_rows(spec, row, count, out);
  const Change& change = found->second;
  const auto cols = static_cast<size_t>(spec.cols);
  WideRows rows(source_);
  const std::span<float> wide = rows.read(spec, row, count);
  for (int64_t i = 0; i < count; ++i) {
    const std::span<float> weights = wide.subspan(static_cast<size_t>(i) * cols, cols);
    if (change.columns != nullptr && !change.columns->empty()) {
      for (size_t j = 0; j < cols; ++j) weights[j] *= (*change.columns)[j];
    }
    const int64_t divided = row + i - change.first_row;
    if (change.divisors == nullptr || change.divisors->empty() || divided < 0) continue;
    for (float& weight : weights) weight /= (*change.divisors)[static_cast<size_t>(divided)];
  }
  std::ranges::copy(std::as_bytes(wide), out.begin());
}

std::optional<std::vector<LayerFactors>> find_factors(const WeightRows& source, const ActivationRanges& ranges,
                                                      double alpha, const std::function<bool()>& goes_on) {
  std::vector<LayerFactors> layers(ranges.layers.size());
  std::map<std::string, std::pair<size_t, size_t>> places;  // layer and matrix
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    for (size_t matrix = 0; matrix < kLargeMatrices.size(); ++matrix) {
      places[layer_tensor_name(static_cast<int64_t>(layer), std::string(kLargeMatrices[matrix]) + ".weight")] = {
          layer, matrix};
    }
  }
  for (const TensorSpec& spec : model_spec::opt_tensors(source.config())) {
    const auto found = places.find(spec.name);
    if (found == places.end()) continue;
    const auto [layer, matrix] = found->second;
    if (!can_smooth(source.config(), matrix)) continue;
    if (!goes_on()) return std::nullopt;
    layers[layer][matrix] = smoothing_factors(ranges.layers[layer][matrix].largest, column_maxima(source, spec), alpha);
  }
  return layers;
}

Result<std::optional<SmoothedSource>> open_smoothing(const ConvertOptions& options, const CagedModel& source) {
  if (options.smooth_ranges.empty()) return std::optional<SmoothedSource>();
  if (Status status = check_smoothing(options); !status.ok()) return status.refusal();
  const Result<std::string> file = checkpoint::read_text_file(options.smooth_ranges, kRangesBytesMax);
  if (!file.ok()) return file.refusal();
  const checkpoint::MemorySource bytes(std::as_bytes(std::span(file.value())), options.smooth_ranges);
  const Result<ActivationRanges> ranges = parse_ranges(bytes, source.config());
  if (!ranges.ok()) return ranges.refusal();
  if (digest_of(source, ranges.value().dtype) != ranges.value().vectors_sha256) {
    return refuse(ErrorCode::kBadRequest, options.smooth_ranges + ": was measured on another model (" +
                                              ranges.value().model + "): norms and biases differ from the source's");
  }
  auto layers = find_factors(source, ranges.value(), options.smooth_alpha,
                             [&] { return !options.on_progress || options.on_progress({}); });
  if (!layers) return refuse(ErrorCode::kCancelled, "the conversion was cancelled");
  SmoothedSource smoothed{
      {options.smooth_alpha, to_hex(sha256(file.value()))}, SmoothedRows(source, std::move(*layers)), ""};
  if (!source.config().norm_before) {
    smoothed.warning =
        "attention.qkv and ffn.up are not smoothed: this model's norms come after the blocks, where they "
        "are the residual stream as well";
  }
  return std::optional(std::move(smoothed));
}

}  // namespace optserve::converter

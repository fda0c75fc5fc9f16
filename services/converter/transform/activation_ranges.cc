#include "converter/transform/activation_ranges.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "base/check.h"
#include "base/hex.h"
#include "base/sha256.h"
#include "checkpoint/safetensors/safetensors.h"

namespace optserve::converter {
namespace {

using checkpoint::StoredTensor;

constexpr std::string_view kFormat = "optserve-ranges";
constexpr std::string_view kVersion = "1";
constexpr uint64_t kTokensMax = 1'000'000'000'000;
constexpr size_t kNameMax = 64;
constexpr int64_t kBounds = 2;  // lowest and highest

// Two tensors for each matrix: what each channel reaches, and the bounds of all.
std::vector<StoredTensor> ranges_tensors(const model_spec::OptConfig& config) {
  std::vector<StoredTensor> tensors;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    for (size_t matrix = 0; matrix < kLargeMatrices.size(); ++matrix) {
      const std::string name = model_spec::layer_tensor_name(layer, kLargeMatrices[matrix]);
      tensors.push_back({name + ".input_largest", DType::kF32, {inputs_of(config, matrix)}});
      tensors.push_back({name + ".input_bounds", DType::kF32, {kBounds}});
    }
  }
  return tensors;
}

Result<ActivationRanges> parse_metadata(const checkpoint::ByteSource& file,
                                        const std::map<std::string, std::string>& metadata) {
  const auto value = [&](const char* key) {
    const auto found = metadata.find(key);
    return found == metadata.end() ? std::string() : found->second;
  };
  if (value("format") != kFormat || value("format_version") != kVersion) {
    return refuse(ErrorCode::kUnsupportedFormat, file.name() + ": expected ranges of 'optserve calibrate' in version " +
                                                     std::string(kVersion) + ", found another file");
  }
  ActivationRanges ranges;
  ranges.model = value("model");
  if (ranges.model.empty() || ranges.model.size() > kNameMax) {
    return checkpoint::corrupt_file(file.name(), "the model has no name");
  }
  const auto dtype = parse_dtype(value("dtype"));
  if (!dtype || !is_floating(*dtype) || *dtype == DType::kF64) {
    return checkpoint::corrupt_file(file.name(), "dtype must be F32, F16 or BF16");
  }
  ranges.dtype = *dtype;
  ranges.vectors_sha256 = value("vectors_sha256");
  ranges.text_sha256 = value("text_sha256");
  if (!is_sha256_hex(ranges.vectors_sha256) || !is_sha256_hex(ranges.text_sha256)) {
    return checkpoint::corrupt_file(file.name(), "vectors_sha256 and text_sha256 must be 64 lower-case hex digits");
  }
  const std::string tokens = value("tokens");
  const auto [end, error] = std::from_chars(tokens.data(), tokens.data() + tokens.size(), ranges.tokens);
  if (error != std::errc() || end != tokens.data() + tokens.size() || ranges.tokens == 0 ||
      ranges.tokens > kTokensMax) {
    return checkpoint::corrupt_file(file.name(), "tokens must be a positive number");
  }
  return ranges;
}

// Exactly the tensors that the model's sizes ask for.
Status check_tensors(const checkpoint::ByteSource& file, const checkpoint::SafetensorsHeader& header,
                     const model_spec::OptConfig& config) {
  const std::vector<StoredTensor> expected = ranges_tensors(config);
  if (header.tensors.size() != expected.size()) {
    return checkpoint::corrupt_file(file.name(), "has " + std::to_string(header.tensors.size()) +
                                                     " tensors, expected " + std::to_string(expected.size()) + " for " +
                                                     std::to_string(config.num_layers) + " layers");
  }
  for (const StoredTensor& wanted : expected) {
    const StoredTensor* found = header.find(wanted.name);
    if (found == nullptr) return checkpoint::corrupt_file(file.name(), wanted.name + " is missing");
    if (found->dtype != wanted.dtype || found->shape != wanted.shape) {
      return checkpoint::corrupt_file(file.name(), wanted.name + " is " + std::string(dtype_name(found->dtype)) +
                                                       checkpoint::shape_text(found->shape) + ", expected F32" +
                                                       checkpoint::shape_text(wanted.shape));
    }
  }
  return ok_status();
}

// Whether the channels and the bounds can have been measured on the same values.
bool is_consistent(const InputRange& range) {
  const auto is_size = [](float value) { return std::isfinite(value) && value >= 0; };
  if (!std::ranges::all_of(range.largest, is_size)) return false;
  if (!std::isfinite(range.lowest) || !std::isfinite(range.highest) || range.lowest > range.highest) return false;
  return *std::ranges::max_element(range.largest) == std::max(std::abs(range.lowest), std::abs(range.highest));
}

}  // namespace

int64_t inputs_of(const model_spec::OptConfig& config, size_t matrix) {
  return matrix == kDownMatrix ? config.ffn : config.hidden;
}

std::string ranges_file(const ActivationRanges& ranges) {
  model_spec::OptConfig config;
  config.num_layers = static_cast<int64_t>(ranges.layers.size());
  config.hidden = static_cast<int64_t>(ranges.layers.at(0)[kQkvMatrix].largest.size());
  config.ffn = static_cast<int64_t>(ranges.layers.at(0)[kDownMatrix].largest.size());
  std::vector<StoredTensor> tensors = ranges_tensors(config);
  std::string file = checkpoint::safetensors_header(tensors, {{"format", std::string(kFormat)},
                                                              {"format_version", std::string(kVersion)},
                                                              {"model", ranges.model},
                                                              {"dtype", std::string(dtype_name(ranges.dtype))},
                                                              {"vectors_sha256", ranges.vectors_sha256},
                                                              {"text_sha256", ranges.text_sha256},
                                                              {"tokens", std::to_string(ranges.tokens)}});
  const auto append = [&](std::span<const float> values) {
    file.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  };
  for (const auto& layer : ranges.layers) {
    for (const InputRange& range : layer) {
      append(range.largest);
      append(std::array{range.lowest, range.highest});
    }
  }
  return file;
}

Result<ActivationRanges> parse_ranges(const checkpoint::ByteSource& file, const model_spec::OptConfig& config) {
  const Result<checkpoint::SafetensorsHeader> header = checkpoint::read_safetensors(file);
  if (!header.ok()) return header.refusal();
  Result<ActivationRanges> ranges = parse_metadata(file, header.value().metadata);
  if (!ranges.ok()) return ranges;
  if (Status status = check_tensors(file, header.value(), config); !status.ok()) return status.refusal();
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    auto& found = ranges.value().layers.emplace_back();
    for (size_t matrix = 0; matrix < kLargeMatrices.size(); ++matrix) {
      const std::string name = model_spec::layer_tensor_name(layer, kLargeMatrices[matrix]);
      InputRange& range = found[matrix];
      range.largest.resize(static_cast<size_t>(inputs_of(config, matrix)));
      std::array<float, kBounds> bounds{};
      file.read_at(header.value().find(name + ".input_largest")->offset,
                   std::as_writable_bytes(std::span(range.largest)));
      file.read_at(header.value().find(name + ".input_bounds")->offset, std::as_writable_bytes(std::span(bounds)));
      range.lowest = bounds[0];
      range.highest = bounds[1];
      if (!is_consistent(range)) {
        return checkpoint::corrupt_file(file.name(), name + ": its ranges are not finite or contradict each other");
      }
    }
  }
  return ranges;
}

std::string vectors_digest(const model_spec::OptConfig& config,
                           const std::function<std::vector<std::byte>(const model_spec::TensorSpec&)>& read) {
  Sha256 hash;
  for (const model_spec::TensorSpec& spec : model_spec::opt_tensors(config)) {
    if (!spec.is_matrix) hash.update(read(spec));
  }
  return to_hex(hash.finish());
}

}  // namespace optserve::converter

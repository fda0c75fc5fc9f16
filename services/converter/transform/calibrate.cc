#include "converter/transform/calibrate.h"

#include <algorithm>
#include <cmath>

#include "backend/cpu/cpu_backend.h"
#include "base/hex.h"
#include "base/sha256.h"
#include "checkpoint/reader.h"
#include "engine/layer_walk.h"
#include "tokenizer/bpe.h"
#include "tokenizer/encoder.h"

namespace optserve::converter {
namespace {

using checkpoint::CheckpointReader;
using engine::LayerInput;
using Windows = std::vector<std::vector<TokenId>>;

constexpr int kCalibrateHashThreads = 2;

Result<std::vector<TokenId>> tokens_of(const CheckpointReader& checkpoint, const CalibrateOptions& options) {
  if (checkpoint.vocab_path().empty()) {
    return refuse(ErrorCode::kBadRequest,
                  checkpoint.folder() + ": has no tokenizer; convert it with --vocab and --merges");
  }
  const auto bpe = tokenizer::Bpe::load(checkpoint.vocab_path(), checkpoint.merges_path(), checkpoint.added_path());
  if (!bpe.ok()) return bpe.refusal();
  if (static_cast<int64_t>(bpe.value().size()) > checkpoint.config().vocab) {
    return refuse(ErrorCode::kDataCorrupt, checkpoint.folder() + ": its vocabulary has more tokens than the model");
  }
  std::vector<TokenId> ids;
  if (Status status = tokenizer::Encoder(bpe.value()).encode(options.text, ids); !status.ok()) return status.refusal();
  if (ids.empty()) return refuse(ErrorCode::kBadRequest, "the text is empty");
  ids.resize(std::min(ids.size(), static_cast<size_t>(options.tokens)));
  return ids;
}

// Cuts the text into windows, each of which begins with bos_id as a prompt does.
Windows cut(const std::vector<TokenId>& ids, const model_spec::OptConfig& config) {
  const auto width = static_cast<size_t>(std::min(kCalibrationWindow, config.max_positions) - 1);
  Windows windows;
  for (size_t begin = 0; begin < ids.size(); begin += width) {
    std::vector<TokenId>& window = windows.emplace_back(1, config.bos_id);
    const size_t end = std::min(ids.size(), begin + width);
    window.insert(window.end(), ids.begin() + static_cast<long>(begin), ids.begin() + static_cast<long>(end));
  }
  return windows;
}

size_t matrix_of(LayerInput input) {
  switch (input) {
    case LayerInput::kQkv:
      return kQkvMatrix;
    case LayerInput::kOut:
      return kOutMatrix;
    case LayerInput::kUp:
      return kUpMatrix;
    case LayerInput::kDown:
      return kDownMatrix;
  }
  check_failed("an input of no matrix", std::source_location::current());
}

// Widens the range to hold these rows of inputs; false if one of them is not finite.
bool widen(InputRange& range, const Tensor& x) {
  for (int64_t row = 0; row < x.dim(0); ++row) {
    const float* values = x.row<float>(row);
    for (size_t channel = 0; channel < range.largest.size(); ++channel) {
      const float value = values[channel];
      if (!std::isfinite(value)) return false;
      range.largest[channel] = std::max(range.largest[channel], std::abs(value));
      range.lowest = std::min(range.lowest, value);
      range.highest = std::max(range.highest, value);
    }
  }
  return true;
}

Status measure(const CheckpointReader& checkpoint, const Windows& windows, const CalibrateOptions& options,
               ActivationRanges& ranges) {
  const auto source = engine::make_checkpoint_source(checkpoint);
  backend::CpuBackend backend({});
  engine::LayerWalk walk(*source, backend, windows);
  while (!walk.at_end()) {
    if (options.goes_on && !options.goes_on()) return refuse(ErrorCode::kCancelled, "the calibration was cancelled");
    auto& layer = ranges.layers.emplace_back();
    for (size_t matrix = 0; matrix < layer.size(); ++matrix) {
      layer[matrix].largest.resize(static_cast<size_t>(inputs_of(checkpoint.config(), matrix)));
    }
    bool finite = true;
    walk.next_layer([&](LayerInput input, const Tensor& x) { finite = widen(layer[matrix_of(input)], x) && finite; });
    if (!finite) {
      return refuse(ErrorCode::kDataCorrupt, checkpoint.folder() + ": activations of layer " +
                                                 std::to_string(walk.layer() - 1) + " are NaN or infinite");
    }
  }
  return ok_status();
}

}  // namespace

Result<ActivationRanges> calibrate(const CalibrateOptions& options) {
  const Result<CheckpointReader> opened = CheckpointReader::open(options.checkpoint);
  if (!opened.ok()) return opened.refusal();
  const CheckpointReader& checkpoint = opened.value();
  if (options.tokens < 1) return refuse(ErrorCode::kBadRequest, "tokens must be at least 1");
  if (checkpoint.config().max_positions < 2) {
    return refuse(ErrorCode::kBadRequest, checkpoint.folder() + ": has one position, and a text needs two");
  }
  if (Status status = checkpoint.verify_checksums(0, 1, kCalibrateHashThreads); !status.ok()) return status.refusal();
  const Result<std::vector<TokenId>> ids = tokens_of(checkpoint, options);
  if (!ids.ok()) return ids.refusal();
  ActivationRanges ranges;
  ranges.model = checkpoint.config().name;
  ranges.dtype = checkpoint.dtype();
  ranges.tokens = ids.value().size();
  ranges.text_sha256 = to_hex(sha256(options.text));
  ranges.vectors_sha256 = vectors_digest(checkpoint.config(), [&](const model_spec::TensorSpec& spec) {
    std::vector<std::byte> bytes(checkpoint.block_bytes(spec, 1));
    checkpoint.read_block(spec, 0, 1, bytes);
    return bytes;
  });
  if (Status status = measure(checkpoint, cut(ids.value(), checkpoint.config()), options, ranges); !status.ok()) {
    return status.refusal();
  }
  return ranges;
}

}  // namespace optserve::converter

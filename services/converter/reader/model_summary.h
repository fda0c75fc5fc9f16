// What a reader process says about the model in the checkpoint that it has opened, and the bytes in which it says so.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "checkpoint/manifest/manifest.h"
#include "converter/vocabulary/tokenizer_files.h"
#include "model_spec/opt_config.h"
#include "tensor/dtype.h"

namespace optserve::converter {

// A tensor as the foreign files have it.
struct ForeignEntry {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  uint32_t part = 0;
  bool operator==(const ForeignEntry&) const = default;
};

struct ModelSummary {
  std::string kind;    // "metaseq", "huggingface" or "faster_transformer"
  std::string layout;  // "2 model-parallel parts, flattened"
  std::vector<checkpoint::SourceFile> files;
  std::vector<std::string> warnings;
  std::vector<ForeignEntry> tensors;            // for inspection only
  std::optional<model_spec::OptConfig> config;  // of the model; absent only where `problem` says why
  std::string problem;                          // why it cannot be converted; empty if it can
  DType natural_dtype = DType::kF32;
  std::vector<DType> dtypes;   // of each entry of opt_tensors(config), unless there is a problem
  bool has_replicas = false;   // some tensors exist in several parts
  bool has_tokenizer = false;  // for inspection only
};

// Refused if it does not fit into `bytes_max`.
Result<std::string> encode_summary(const ModelSummary& summary, uint64_t bytes_max);

// Refuses whatever an honest reader would not say: lengths, numbers or types out of range, sizes that no model has,
// bytes left over. Texts lose their control characters.
Result<ModelSummary> decode_summary(std::span<const std::byte> bytes);

// The same for a tokenizer: of its three texts, only the sizes are included.
std::string encode_tokenizer(const TokenizerFiles& files);
struct TokenizerSummary {
  TokenizerFiles files;  // whose texts are still missing
  std::array<uint64_t, 3> bytes{};
};
Result<TokenizerSummary> decode_tokenizer(std::span<const std::byte> bytes);

// The text, cut after `bytes_max`, with '?' for control characters and for invalid UTF-8; line ends stay.
std::string printable_text(std::string_view text, size_t bytes_max);

}  // namespace optserve::converter

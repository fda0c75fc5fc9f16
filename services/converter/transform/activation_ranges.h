// How large the inputs of a model's large matrices get on some text: what `optserve calibrate` measures and stores, and
// `optserve convert --smooth` reads. A safetensors file; docs/checkpoint_format.md describes it.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "checkpoint/io/byte_source.h"
#include "model_spec/opt_tensors.h"
#include "tensor/dtype.h"

namespace optserve::converter {

// The large matrices of a layer, in the order in which they are used.
inline constexpr std::array<std::string_view, 4> kLargeMatrices = {"attention.qkv", "attention.out", "ffn.up",
                                                                   "ffn.down"};
enum LargeMatrix : uint8_t { kQkvMatrix, kOutMatrix, kUpMatrix, kDownMatrix };
// How many inputs one of them has: hidden, or ffn.
int64_t inputs_of(const model_spec::OptConfig& config, size_t matrix);

// What the inputs of one matrix reach, over all tokens.
struct InputRange {
  std::vector<float> largest;  // [in]: max |x| of each channel
  float lowest = 0;            // of all channels, and of zero
  float highest = 0;
};

struct ActivationRanges {
  std::string model;           // its name, for people
  DType dtype{};               // of the checkpoint that was run
  std::string vectors_sha256;  // vectors_digest() of it: which model this is
  std::string text_sha256;     // of the text that was run
  uint64_t tokens = 0;         // how many of its first tokens were run
  std::vector<std::array<InputRange, kLargeMatrices.size()>> layers;
};

// The bytes of a file: the same ranges give the same bytes.
std::string ranges_file(const ActivationRanges& ranges);
// Refuses files that do not hold ranges of a model of these sizes: other tensors, shapes and types, values that are
// negative or not finite, and ranges that contradict each other. Whether they were measured on this very model is what
// vectors_sha256 says.
Result<ActivationRanges> parse_ranges(const checkpoint::ByteSource& file, const model_spec::OptConfig& config);

// SHA-256 of the norms and biases of a model, which no layout, sharding or quantisation changes. `read`: the bytes of a
// vector of the table, rounded to the type that ActivationRanges::dtype names.
std::string vectors_digest(const model_spec::OptConfig& config,
                           const std::function<std::vector<std::byte>(const model_spec::TensorSpec&)>& read);

}  // namespace optserve::converter

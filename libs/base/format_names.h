// The words for number formats that command lines, messages and manifests share. What they mean is defined above this
// layer (tensor/dtype.h, quant/quant_format.h), in tables that must have an entry for each word.
#pragma once

#include <array>
#include <string_view>

namespace optserve {

// Formats that a model computes in.
inline constexpr std::array<std::string_view, 3> kDtypeNames = {"fp32", "fp16", "bf16"};
// Formats of a KV cache, besides that of the activations.
inline constexpr std::array<std::string_view, 1> kKvDtypeNames = {"int8"};
// Ways to quantise a weight.
inline constexpr std::array<std::string_view, 4> kQuantisationNames = {"int8", "int8-mse", "fp8", "int4"};

// Formats of quantised weights; there may be several ways to quantise to one format.
inline constexpr std::array<std::string_view, 3> kQuantFormatNames = {"int8", "fp8", "int4"};

// The words before and after `names`, for options that accept further ones: with_words({"auto"}, kDtypeNames).
template <size_t A, size_t B>
constexpr std::array<std::string_view, A + B> with_words(const std::string_view (&first)[A],
                                                         const std::array<std::string_view, B>& names) {
  std::array<std::string_view, A + B> all{};
  for (size_t i = 0; i < A; ++i) all[i] = first[i];
  for (size_t i = 0; i < B; ++i) all[A + i] = names[i];
  return all;
}

}  // namespace optserve

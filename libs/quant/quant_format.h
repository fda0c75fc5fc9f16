// The formats a weight may be stored in, one row each. A layer never names a format; it holds a Weight.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "tensor/tensor.h"

namespace optserve {

enum class QuantFormat : uint8_t { kF32, kF16, kBF16 };

struct QuantFormatInfo {
  QuantFormat format;
  std::string_view name;   // in manifests and on the command line
  DType storage;           // element type on disk
  double bits_per_weight;  // including scales
};

std::span<const QuantFormatInfo> quant_formats();
const QuantFormatInfo* find_quant_format(std::string_view name);  // nullptr: no such format
const QuantFormatInfo& info(QuantFormat format);
// The format that stores plain elements of `dtype`, if there is one.
std::optional<QuantFormat> plain_format(DType dtype);

}  // namespace optserve

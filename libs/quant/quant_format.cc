#include "quant/quant_format.h"

#include <algorithm>

namespace optserve {
namespace {

constexpr QuantFormatInfo kFormats[] = {
    {QuantFormat::kF32, "fp32", DType::kF32, 32},
    {QuantFormat::kF16, "fp16", DType::kF16, 16},
    {QuantFormat::kBF16, "bf16", DType::kBF16, 16},
};

}  // namespace

std::span<const QuantFormatInfo> quant_formats() { return kFormats; }

const QuantFormatInfo* find_quant_format(std::string_view name) {
  const auto* row = std::ranges::find(kFormats, name, &QuantFormatInfo::name);
  return row == std::end(kFormats) ? nullptr : row;
}

const QuantFormatInfo& info(QuantFormat format) {
  const auto* row = std::ranges::find(kFormats, format, &QuantFormatInfo::format);
  check(row != std::end(kFormats), "quantisation format without a row in the table");
  return *row;
}

std::optional<QuantFormat> plain_format(DType dtype) {
  for (const QuantFormatInfo& row : kFormats) {
    const bool plain = row.bits_per_weight == 8.0 * static_cast<double>(dtype_bytes(row.storage));
    if (plain && row.storage == dtype && tensor::is_floating(dtype)) return row.format;
  }
  return std::nullopt;
}

}  // namespace optserve

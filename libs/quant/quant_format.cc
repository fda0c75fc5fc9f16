#include "quant/quant_format.h"

#include <algorithm>
#include <array>

#include "base/check.h"
#include "base/format_names.h"

namespace optserve::quant {
namespace {

constexpr QuantFormatInfo kFormats[] = {
    {QuantFormat::kF32, "fp32", DType::kF32, 32, 1, 0},
    {QuantFormat::kF16, "fp16", DType::kF16, 16, 1, 0},
    {QuantFormat::kBF16, "bf16", DType::kBF16, 16, 1, 0},
    {QuantFormat::kInt8, "int8", DType::kI8, 8, 1, kWholeRow},
    {QuantFormat::kFp8, "fp8", DType::kF8E4M3, 8, 1, kWholeRow},
    {QuantFormat::kInt4, "int4", DType::kU8, 4.25, 2, 128},
};

// In the order of kQuantisationNames.
constexpr std::array<Quantisation, kQuantisationNames.size()> kQuantisations = {{
    {QuantFormat::kInt8, ScaleChoice::kMax},
    {QuantFormat::kInt8, ScaleChoice::kLeastError},
    {QuantFormat::kFp8, ScaleChoice::kMax},
    {QuantFormat::kInt4, ScaleChoice::kMax},
}};

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
    if (row.group == 0 && row.storage == dtype) return row.format;
  }
  return std::nullopt;
}

int64_t input_multiple(QuantFormat format) { return std::max<int64_t>(1, info(format).group); }

int64_t elements_per_row(QuantFormat format, int64_t in) { return in / info(format).packed; }

int64_t scales_per_row(QuantFormat format, int64_t in) {
  const int64_t group = info(format).group;
  if (group == kWholeRow) return 1;
  return group == 0 ? 0 : in / group;
}

bool is_known(const Quantisation& quantisation) {
  return std::ranges::find(kQuantisations, quantisation) != kQuantisations.end();
}

std::optional<Quantisation> find_quantisation(std::string_view name) {
  const auto found = std::ranges::find(kQuantisationNames, name);
  if (found == kQuantisationNames.end()) return std::nullopt;
  return kQuantisations[static_cast<size_t>(found - kQuantisationNames.begin())];
}

std::string_view quantisation_name(const Quantisation& quantisation) {
  const auto found = std::ranges::find(kQuantisations, quantisation);
  check(found != kQuantisations.end(), "quantisation without an entry in the table");
  return kQuantisationNames[static_cast<size_t>(found - kQuantisations.begin())];
}

}  // namespace optserve::quant

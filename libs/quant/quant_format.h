// The formats a weight may be stored in, one row each. A layer never names a format; it holds a Weight.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "tensor/tensor.h"

namespace optserve::quant {

enum class QuantFormat : uint8_t { kF32, kF16, kBF16, kInt8, kFp8, kInt4 };

inline constexpr int64_t kWholeRow = -1;

struct QuantFormatInfo {
  QuantFormat format;
  std::string_view name;   // in manifests and on the command line
  DType storage;           // element type on disk
  double bits_per_weight;  // including scales of groups; those of whole rows vanish
  int64_t packed;          // weights in one element
  int64_t group;           // inputs that share a scale; 0: plain, no scales; kWholeRow
};

std::span<const QuantFormatInfo> quant_formats();
const QuantFormatInfo* find_quant_format(std::string_view name);  // nullptr: no such format
const QuantFormatInfo& info(QuantFormat format);
inline bool is_plain(QuantFormat format) { return info(format).group == 0; }
// The format that stores plain elements of `dtype`, if there is one.
std::optional<QuantFormat> plain_format(DType dtype);

// Inputs of a row must be a multiple of this: groups are whole.
int64_t input_multiple(QuantFormat format);
// Of one row of `in` weights: elements of storage, and scales.
int64_t elements_per_row(QuantFormat format, int64_t in);
int64_t scales_per_row(QuantFormat format, int64_t in);

// How the scale of a row or group is chosen. Readers need not know.
enum class ScaleChoice : uint8_t { kMax, kLeastError };

// A way to quantise: what is stored, and how scales are chosen.
struct Quantisation {
  QuantFormat format = QuantFormat::kInt8;
  ScaleChoice scales = ScaleChoice::kMax;
  bool operator==(const Quantisation&) const = default;
};

// Whether quantise_rows() does it; only formats with scales can be quantised to.
bool is_known(const Quantisation& quantisation);
// The spellings of command lines: kQuantisationNames (base/format_names.h).
std::optional<Quantisation> find_quantisation(std::string_view name);
std::string_view quantisation_name(const Quantisation& quantisation);

}  // namespace optserve::quant

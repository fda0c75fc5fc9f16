// The formats in which a weight may be stored. Layers hold a Weight and never name a format.
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
  double bits_per_weight;  // including the scales of groups, but not the few scales of whole rows
  int64_t packed;          // weights in one element
  int64_t group;           // inputs that share a scale, or kWholeRow; 0: the format is plain and has no scales
};

std::span<const QuantFormatInfo> quant_formats();
const QuantFormatInfo* find_quant_format(std::string_view name);  // nullptr if there is no such format
const QuantFormatInfo& info(QuantFormat format);
inline bool is_plain(QuantFormat format) { return info(format).group == 0; }
// The format that stores plain elements of `dtype`, if there is one.
std::optional<QuantFormat> plain_format(DType dtype);

// The number of inputs must be a multiple of this, since groups must be whole.
int64_t input_multiple(QuantFormat format);
// The number of elements of `storage`, and of scales, in a row of `in` weights.
int64_t elements_per_row(QuantFormat format, int64_t in);
int64_t scales_per_row(QuantFormat format, int64_t in);

// How the scale of a row or group is chosen: so that the largest weight is representable, or so that the squared error
// is smallest. Reading does not depend on it.
enum class ScaleChoice : uint8_t { kMax, kLeastError };

// A way to quantise: what is stored, and how scales are chosen.
struct Quantisation {
  QuantFormat format = QuantFormat::kInt8;
  ScaleChoice scales = ScaleChoice::kMax;
  bool operator==(const Quantisation&) const = default;
};

// Whether quantise_rows() supports it: it needs a format with scales, and not every choice of scales exists for each.
bool is_known(const Quantisation& quantisation);
// Names are those of command lines: kQuantisationNames in base/format_names.h.
std::optional<Quantisation> find_quantisation(std::string_view name);
std::string_view quantisation_name(const Quantisation& quantisation);

}  // namespace optserve::quant

#include "converter/verify/row_check.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>

#include "base/check.h"
#include "quant/e4m3.h"
#include "quant/quantise.h"

namespace optserve::converter {
namespace {

constexpr double kSlack = 0x1p-14;       // of a step: weight / scale is computed in fp32
constexpr double kScaleSlack = 0x1p-20;  // relative
constexpr double kLeastRatio = 0.62;     // of scales of least squared error to those of the largest weight

double largest_code(quant::QuantFormat format) {
  if (format == quant::QuantFormat::kFp8) return quant::kE4m3Max;
  return format == quant::QuantFormat::kInt4 ? quant::kInt4Limit : quant::kInt8Limit;
}

float largest_magnitude(std::span<const float> weights) {
  float largest = 0;
  for (const float weight : weights) largest = std::max(largest, std::abs(weight));
  return largest;
}

std::string number(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.7g", value);
  return text.data();
}

}  // namespace

void RowCheck::begin_row(int64_t row, std::span<const float> source) {
  row_ = row;
  source_ = source;
  rounded_.resize(source.size() * dtype_bytes(stored_.dtype));
  convert_from_f32(source.data(), stored_.dtype, rounded_.data(), source.size());
  weights_.resize(source.size());
  convert_to_f32(rounded_.data(), stored_.dtype, weights_.data(), source.size());
}

// `describe` is called for the first one only: damaged tensors have millions.
template <class Describe>
void RowCheck::add_wrong(int64_t col, Describe describe) {
  if (findings_.wrong++ == 0) {
    findings_.first_wrong = "row " + std::to_string(row_) + ", column " + std::to_string(col) + ": " + describe();
  }
}

void RowCheck::compare(int64_t col, std::span<const std::byte> values, std::span<const float> scales) {
  if (stored_.quantisation) {
    compare_quantised(col, values, scales);
  } else {
    compare_plain(col, values);
  }
  findings_.weights += found_.size();
}

void RowCheck::compare_plain(int64_t col, std::span<const std::byte> values) {
  const size_t element = dtype_bytes(stored_.dtype);
  const size_t cols = values.size() / element;
  const std::byte* const wanted = rounded_.data() + static_cast<size_t>(col) * element;
  found_.resize(cols);
  convert_to_f32(values.data(), stored_.dtype, found_.data(), cols);
  for (size_t at = static_cast<size_t>(col); at < static_cast<size_t>(col) + cols; ++at) {
    add_rounding(source_[at], weights_[at]);
  }
  if (std::memcmp(wanted, values.data(), values.size()) == 0) return;
  for (size_t i = 0; i < cols; ++i) {
    if (std::memcmp(wanted + i * element, values.data() + i * element, element) == 0) continue;
    const size_t at = static_cast<size_t>(col) + i;
    if (std::isnan(found_[i]) && std::isnan(weights_[at])) continue;  // a NaN is a NaN
    add_wrong(static_cast<int64_t>(at), [&] { return number(found_[i]) + ", expected " + number(weights_[at]); });
  }
}

void RowCheck::compare_quantised(int64_t col, std::span<const std::byte> values, std::span<const float> scales) {
  const quant::QuantFormatInfo& format = info(stored_.quantisation->format);
  const auto cols = static_cast<int64_t>(values.size() / dtype_bytes(format.storage)) * format.packed;
  const bool is_whole_row = format.group == quant::kWholeRow;
  const auto group = static_cast<size_t>(is_whole_row ? cols : format.group);
  found_.resize(static_cast<size_t>(cols));
  quant::dequantise_rows(format.format, values, scales, cols, found_);
  const std::span<const float> weights = std::span(weights_).subspan(static_cast<size_t>(col), found_.size());
  for (size_t i = 0; i < found_.size(); ++i) {
    const float scale = scales[i / group];
    if (i % group == 0) {
      check_scale(col + static_cast<int64_t>(i),
                  is_whole_row ? std::span<const float>(weights_) : weights.subspan(i, group), scale);
    }
    const double error = std::abs(static_cast<double>(found_[i]) - weights[i]);
    const double may_be = allowed(weights[i], found_[i], scale);
    if (error <= may_be) {
      findings_.worst = std::max(findings_.worst, error / may_be);
      add_rounding(source_[static_cast<size_t>(col) + i], found_[i]);
      continue;
    }
    add_wrong(col + static_cast<int64_t>(i),
              [&] { return number(found_[i]) + ", expected " + number(weights[i]) + " within " + number(may_be); });
  }
}

// The scale of the largest weight, or down to kLeastRatio of it where the least squared error chose.
void RowCheck::check_scale(int64_t col, std::span<const float> weights, float scale) {
  const double widest = std::max<double>(largest_magnitude(weights) / largest_code(stored_.quantisation->format),
                                         std::numeric_limits<float>::min());
  const bool is_chosen = stored_.quantisation->scales == quant::ScaleChoice::kLeastError;
  const double least = std::max<double>(widest * (is_chosen ? kLeastRatio : 1), std::numeric_limits<float>::min());
  if (scale >= least * (1 - kScaleSlack) && scale <= widest * (1 + kScaleSlack)) return;
  add_wrong(col, [&] {
    return "its scale is " + number(scale) + ", expected " + (is_chosen ? number(least) + " to " : "") + number(widest);
  });
}

// Half a step of the format around the weight; a weight beyond the largest code lies as far off as its scale allows.
double RowCheck::allowed(float weight, float found, float scale) const {
  const quant::QuantFormat format = stored_.quantisation->format;
  const double steps = std::abs(static_cast<double>(weight)) / scale;
  if (format == quant::QuantFormat::kFp8) {
    const double half_step = steps > 0 ? std::max(std::ldexp(1.0, std::ilogb(steps) - 4), 0x1p-10) : 0x1p-10;
    return scale * half_step * (1 + kSlack);
  }
  const bool is_saturated = stored_.quantisation->scales == quant::ScaleChoice::kLeastError && weight * found > 0 &&
                            std::abs(found) > scale * (largest_code(format) - 0.5) &&
                            std::abs(weight) > std::abs(found);
  const double beyond = is_saturated ? largest_code(format) * (1 / kLeastRatio - 1) : 0;
  return scale * (0.5 + kSlack + beyond);
}

void RowCheck::add_rounding(float source, float rounded) {
  const double error = static_cast<double>(rounded) - source;
  if (!std::isfinite(error)) return;
  findings_.error_squares += error * error;
  findings_.source_squares += static_cast<double>(source) * source;
}

}  // namespace optserve::converter

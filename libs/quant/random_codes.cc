#include "quant/random_codes.h"

#include <cmath>

#include "base/check.h"
#include "quant/e4m3.h"
#include "quant/quantise.h"

namespace optserve::quant {
namespace {

float limit_of(QuantFormat format) {
  switch (format) {
    case QuantFormat::kInt8:
      return static_cast<float>(kInt8Limit);
    case QuantFormat::kFp8:
      return kE4m3Max;
    case QuantFormat::kInt4:
      return static_cast<float>(kInt4Limit);
    default:
      break;
  }
  check_failed("random codes of a plain format", std::source_location::current());
}

uint8_t code_at(const RandomBlock& block, QuantFormat format, int64_t row, int64_t col) {
  const auto index = static_cast<uint64_t>(row * block.whole_cols + block.first_col + col);
  const float unit = static_cast<float>(splitmix64(block.key + index) >> 40) * 0x1p-23f - 1.0f;
  const float exact = unit * limit_of(format);
  if (format == QuantFormat::kFp8) return float_to_e4m3(exact);
  return static_cast<uint8_t>(static_cast<int8_t>(std::nearbyintf(exact)));
}

}  // namespace

float random_scale(const RandomBlock& block, QuantFormat format) { return block.reach / limit_of(format); }

void fill_random_codes(const RandomBlock& block, QuantFormat format, std::span<std::byte> out) {
  check(block.centre == 0 && block.cols % input_multiple(format) == 0, "random codes: a matrix around zero");
  check_eq(out.size(), static_cast<size_t>(block.rows() * elements_per_row(format, block.cols)), "random codes");
  auto* to = out.data();
  const bool two_in_a_byte = info(format).packed == 2;
  for (const RandomBlock::Run& run : block.runs) {
    for (int64_t row = run.first_row; row < run.first_row + run.rows; ++row) {
      for (int64_t col = 0; col < block.cols; col += info(format).packed) {
        uint8_t code = code_at(block, format, row, col);
        if (two_in_a_byte) {
          code = static_cast<uint8_t>((code & 15) | (code_at(block, format, row, col + 1) << 4));
        }
        *to++ = static_cast<std::byte>(code);
      }
    }
  }
}

}  // namespace optserve::quant

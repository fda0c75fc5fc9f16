// Rows of weights to low-bit values with scales, and back. Weight = value * scale, with a scale for each row (int8,
// fp8) or for each 128 inputs of a row (int4); everything is symmetric, so zero stays zero. Pure functions: the same
// input gives the same bytes on every x86 machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "quant/quant_format.h"

namespace optserve::quant {

// Largest magnitude of a value: |weight| up to scale * limit is representable.
inline constexpr int kInt8Limit = 127;
inline constexpr int kInt4Limit = 7;

// `rows` holds whole rows of `in` weights, `in` a multiple of input_multiple(). `values` and `scales` have room for
// elements_per_row() elements and scales_per_row() scales of each row. Aborts if a weight is NaN or infinite.
//
// Scales are positive normal numbers, also for rows of zeros. int4 packs two's complement values of four bits: input 2i
// in the lower half of byte i, 2i + 1 in the upper. The codes -128 and -8 are never written.
void quantise_rows(const Quantisation& how, std::span<const float> rows, int64_t in, std::span<std::byte> values,
                   std::span<float> scales);

// The opposite; any values and scales are accepted.
void dequantise_rows(QuantFormat format, std::span<const std::byte> values, std::span<const float> scales, int64_t in,
                     std::span<float> rows);

}  // namespace optserve::quant

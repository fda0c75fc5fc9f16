// Turns rows of weights into values of a few bits with scales, and back. A weight is value * scale, with one scale for
// each row (int8, fp8) or for every 128 inputs of a row (int4). All formats are symmetric, so that zero stays zero.
// These are pure functions: the same input gives the same bytes on every x86 machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "quant/quant_format.h"

namespace optserve::quant {

// The largest magnitude of a value, so that weights up to scale * limit are representable.
inline constexpr int kInt8Limit = 127;
inline constexpr int kInt4Limit = 7;

// `rows` holds whole rows of `in` weights; `in` is a multiple of input_multiple(). `values` and `scales` have room for
// elements_per_row() elements and scales_per_row() scales for each row. Aborts if a weight is NaN or infinite.
//
// Scales are positive normal numbers, even for rows of zeros. int4 packs two's complement values of four bits: input 2i
// into the lower half of byte i, input 2i + 1 into the upper half. The codes -128 and -8 are never written.
void quantise_rows(const Quantisation& how, std::span<const float> rows, int64_t in, std::span<std::byte> values,
                   std::span<float> scales);

// The inverse. Any values and scales are accepted.
void dequantise_rows(QuantFormat format, std::span<const std::byte> values, std::span<const float> scales, int64_t in,
                     std::span<float> rows);

}  // namespace optserve::quant

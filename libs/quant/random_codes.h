// Quantised random matrices: the values of a RandomBlock as codes with a single scale, so that every device can make
// the same codes without first looking at a whole row.
#pragma once

#include <cstddef>
#include <span>

#include "quant/quant_format.h"
#include "tensor/random_block.h"

namespace optserve::quant {

// The scale of all codes: block.reach divided by the largest value of `format`.
float random_scale(const RandomBlock& block, QuantFormat format);
// Writes u * limit, rounded to codes of `format` and packed as in files, where u is that of RandomBlock, whose centre
// must be 0. `out` has block.rows() rows of elements_per_row(); block.cols is a multiple of input_multiple().
void fill_random_codes(const RandomBlock& block, QuantFormat format, std::span<std::byte> out);

}  // namespace optserve::quant

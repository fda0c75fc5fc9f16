// Quantised random matrices: the values of a RandomBlock as codes with one scale, so that every device can make the
// same ones without looking at a whole row.
#pragma once

#include <cstddef>
#include <span>

#include "quant/quant_format.h"
#include "tensor/random_block.h"

namespace optserve::quant {

// The scale of all of them: block.reach over the largest value of `format`.
float random_scale(const RandomBlock& block, QuantFormat format);
// u * limit rounded to a code of `format`, packed as files hold it; u is that of RandomBlock, whose centre must be 0.
// `out`: block.rows() rows of elements_per_row(), block.cols a multiple of input_multiple().
void fill_random_codes(const RandomBlock& block, QuantFormat format, std::span<std::byte> out);

}  // namespace optserve::quant

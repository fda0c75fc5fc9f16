// Sums of blocks of the same size in a fixed order, so that every rank computes the same bits.
#pragma once

#include <cstdint>
#include <span>

#include "tensor/tensor.h"

namespace optserve::comm {

// out[i] = blocks[0][i] + blocks[1][i] + ..., added left to right in fp32 and rounded once. `dtype` is F32, F16 or
// BF16. `out` may be one of the blocks.
void sum_in_order(DType dtype, std::span<const void* const> blocks, int64_t count, void* out);

// Aborts unless `x` is contiguous and in host memory, as collectives of CPUs require.
void check_host_block(const Tensor& x);

}  // namespace optserve::comm

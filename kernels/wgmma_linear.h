// y = activation(scale * (x W^T) + bias) for quantised W and more rows than quantised_linear.h takes, on Hopper: the
// codes become fp16 in registers and are multiplied by wgmma, so W is read once for each 256 rows. Values and sums are
// as in quantised_linear.h. It is deterministic: a row's bits depend on (format, in, out, the way) and the class of row
// counts alone. Launches on `stream`, allocates nothing, can be captured into a graph.
#pragma once

#include "kernels/quantised_linear.h"

namespace optserve::kernels {

inline constexpr int64_t kSplitRowsMax = 64;

// How a product is cut into tiles, and how the tiles are shared among blocks.
struct WgmmaWay {
  int outputs = 128;  // of a tile: 128, or 192 if it is split and has up to 32 rows
  // Blocks that share the inputs of a tile, as a cluster: 1, 2 or 4, for up to kSplitRowsMax rows. 0: every block has
  // an equal part of all tiles.
  int split = 0;
};

// Sums that blocks hand to each other: memory for the calls of one stream, wgmma_scratch_bytes() in size, which is zero
// when it is first used.
struct WgmmaScratch {
  float* parts = nullptr;
  uint32_t* flags = nullptr;  // zero between launches
};
size_t wgmma_scratch_bytes(const DeviceLimits& device);
WgmmaScratch wgmma_scratch(void* memory, const DeviceLimits& device);

// Whether wgmma_linear() accepts this call in this way: a device of compute capability 9.0, fp16, alignment, shared
// memory.
bool can_wgmma_linear(const QuantisedLinearArgs& args, const WgmmaWay& way, const DeviceLimits& device);
cudaError_t wgmma_linear(const QuantisedLinearArgs& args, const WgmmaWay& way, const WgmmaScratch& scratch,
                         const DeviceLimits& device, cudaStream_t stream);

}  // namespace optserve::kernels

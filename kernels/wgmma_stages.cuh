// How a block of wgmma_linear.cu loads what it multiplies into shared memory.
#pragma once

#include "kernels/dependent_launch.cuh"
#include "kernels/hopper_ptx.cuh"
#include "kernels/quantised_linear.h"
#include "kernels/wgmma_linear.h"

namespace optserve::kernels {

constexpr int kBoxColumns = 64;         // of x: what a swizzle spans
constexpr int kSharedAlignment = 1024;  // of what is swizzled
constexpr int kBlocksEachMax = 2;       // on a multiprocessor

// The shape of a kernel: the codes, rows and warpgroups (of 64 outputs) of a tile, and whether a cluster shares the
// inputs of one tile or each block has a span of all tiles.
template <WeightFormat kOfWeights, int kRows, int kGroups, bool kIsSplit>
struct WgmmaShape {
  static constexpr WeightFormat kFormat = kOfWeights;
  static constexpr bool kSplit = kIsSplit;
  static constexpr int kBands = kGroups;
  static constexpr int kTileRows = kRows;
  static constexpr int kOutputs = 64 * kGroups;
  static constexpr bool kLarge = kRows >= 128;        // needs more registers than an equal share of them
  static constexpr int kMultiplying = 128 * kGroups;  // threads
  static constexpr int kThreads = kMultiplying + (kLarge ? 128 : 32);  // the first warp of the others copies
  static constexpr int kCopyRegisters = 40;                            // of a thread
  static constexpr int kMultiplyRegisters = kGroups == 3 ? 152 : 232;
  static constexpr int kBandBytes = static_cast<int>(kBandOctets * kUnitBytes);  // of a unit
  static constexpr bool kGrouped = kFormat == WeightFormat::kInt4;
  static constexpr int kRowBytes = kBoxColumns * 2;
  static constexpr int kBoxes = static_cast<int>(unit_inputs(kFormat)) / kBoxColumns;
  static constexpr int kBoxBytes = kRows * kRowBytes;
  static constexpr int kXBytes = kBoxes * kBoxBytes;
  static constexpr int kWeightBytes = kGroups * kBandBytes;
  static constexpr int kBandScaleBytes = kGrouped ? static_cast<int>(kBandOutputs) * 4 : 0;
  static constexpr int kScaleBytes = kGroups * kBandScaleBytes;
  static constexpr int kStageBytes = kXBytes + kWeightBytes + (kScaleBytes + 1023) / 1024 * 1024;
  static constexpr int kBlocks =  // per multiprocessor
      kGroups == 2 && (kRows <= 32 || (kRows == 64 && !kGrouped)) ? 2 : 1;
  static constexpr int kStagesFit = ((kBlocks == 2 ? 104 : 200) << 10) / kStageBytes;
  static constexpr int kStages = kStagesFit > 12 ? 12 : kStagesFit;
  static constexpr int kDataBytes = kStages * kStageBytes;
  static constexpr int kSums = kRows / 2;  // of a thread
  static constexpr int kTileCells = kOutputs * kRows;
  static constexpr int kBytes = kDataBytes + kSharedAlignment + 2 * kStages * 8;
  static constexpr int kColumns = kRows < 128 ? kRows : 128;  // of one multiplication
  // Whether registers have room for the operands of two units, 16 words each.
  static constexpr int kRegisters = kLarge ? kMultiplyRegisters : 65536 / (kBlocks * (kThreads + 127) / 128 * 128);
  static constexpr bool kAhead = kSplit && kSums < 128 && kSums + 2 * 16 + 16 < kRegisters;
  static_assert(kStages >= 2 && kBlocks <= kBlocksEachMax);
  static_assert(!kSplit || kTileCells * 4 <= kDataBytes);  // sums are exchanged where the stages were
};

// The units of all tiles in order, of which a block has a contiguous span.
template <class S>
struct Span {
  int units;      // of a tile
  int row_tiles;  // tiles of the same outputs follow each other
  int parts;      // of a tile, where a cluster shares it
  int64_t begin, end;

  __device__ __forceinline__ Span(const QuantisedLinearArgs& args, int units_of_tile, int parts_of_tile)
      : units(units_of_tile),
        row_tiles(static_cast<int>((args.rows + S::kTileRows - 1) / S::kTileRows)),
        parts(parts_of_tile) {
    begin = begin_of(args, blockIdx.x);
    end = begin_of(args, blockIdx.x + 1);
  }
  __device__ __forceinline__ int64_t begin_of(const QuantisedLinearArgs& args, unsigned block) const {
    if constexpr (S::kSplit) {
      return static_cast<int64_t>(block / parts) * units + static_cast<int64_t>(units) * (block % parts) / parts;
    }
    const int64_t tiles = (bands_of(args.out) + S::kBands - 1) / S::kBands * row_tiles;
    return tiles * units * block / gridDim.x;
  }
};

// Where a tile lies.
template <class S>
struct Tile {
  int64_t band;
  int bands;  // that exist
  int row;

  __device__ __forceinline__ Tile(const QuantisedLinearArgs& args, const Span<S>& span, int64_t index)
      : band(index / span.row_tiles * S::kBands),
        bands(static_cast<int>(min(static_cast<int64_t>(S::kBands), bands_of(args.out) - band))),
        row(static_cast<int>(index % span.row_tiles) * S::kTileRows) {}
};

// The stages of a block in shared memory and their barriers.
template <class S>
struct Stages {
  uint32_t data, barriers;

  __device__ __forceinline__ explicit Stages(uint32_t shared)
      : data((shared + kSharedAlignment - 1) / kSharedAlignment * kSharedAlignment), barriers(data + S::kDataBytes) {}
  __device__ __forceinline__ uint32_t x(int stage) const { return data + stage * S::kStageBytes; }
  __device__ __forceinline__ uint32_t weights(int stage) const { return x(stage) + S::kXBytes; }
  __device__ __forceinline__ uint32_t scales(int stage) const { return weights(stage) + S::kWeightBytes; }
  __device__ __forceinline__ uint32_t full(int stage) const { return barriers + stage * 16; }
  __device__ __forceinline__ uint32_t empty(int stage) const { return full(stage) + 8; }
};

// Walks the units of a span and requests them one after another.
template <class S>
class Asking {
 public:
  __device__ __forceinline__ Asking(const QuantisedLinearArgs& args, const Span<S>& span)
      : args_(args),
        span_(span),
        tile_index_(span.begin / span.units),
        tile_(args, span, tile_index_),
        unit_(static_cast<int>(span.begin % span.units)) {}

  // Copies the codes of a unit, and its scales if it has its own; one lane for each band.
  __device__ __forceinline__ void copy_weights(const Stages<S>& stages, int stage) const {
    const int lane = static_cast<int>(threadIdx.x % 32);
    if (lane == 0) {
      arrive_expecting(stages.full(stage), S::kXBytes + tile_.bands * (S::kBandBytes + S::kBandScaleBytes));
    }
    __syncwarp();
    if (lane >= tile_.bands) return;
    const int64_t at = (tile_.band + lane) * span_.units + unit_;
    copy_bulk(stages.weights(stage) + lane * S::kBandBytes, static_cast<const char*>(args_.values) + at * S::kBandBytes,
              S::kBandBytes, stages.full(stage));
    if constexpr (S::kGrouped) {
      copy_bulk(stages.scales(stage) + lane * S::kBandScaleBytes, args_.scales + at * kBandOutputs, S::kBandScaleBytes,
                stages.full(stage));
    }
  }

  __device__ __forceinline__ void copy_x(const CUtensorMap& map, const Stages<S>& stages, int stage) const {
    if (threadIdx.x % 32 != 0) return;
#pragma unroll
    for (int box = 0; box < S::kBoxes; ++box) {
      copy_box(stages.x(stage) + box * S::kBoxBytes, map, (unit_ * S::kBoxes + box) * kBoxColumns, tile_.row,
               stages.full(stage));
    }
  }

  __device__ __forceinline__ void advance() {
    if (++unit_ < span_.units) return;
    unit_ = 0;
    tile_ = Tile<S>(args_, span_, ++tile_index_);
  }

 private:
  const QuantisedLinearArgs& args_;
  const Span<S>& span_;
  int64_t tile_index_;
  Tile<S> tile_;
  int unit_;
};

template <class S>
__device__ __forceinline__ void copy_all(const QuantisedLinearArgs& args, const CUtensorMap& map, const Span<S>& span,
                                         const Stages<S>& stages) {
  const int count = static_cast<int>(span.end - span.begin), first = min(S::kStages, count);
  Asking<S> weights(args, span), x(args, span);
  for (int i = 0; i < first; ++i, weights.advance()) weights.copy_weights(stages, i);
  wait_for_previous();
  for (int i = 0; i < first; ++i, x.advance()) x.copy_x(map, stages, i);
  for (int i = first; i < count; ++i, x.advance()) {
    const int stage = i % S::kStages;
    await(stages.empty(stage), (i / S::kStages - 1) % 2);
    x.copy_weights(stages, stage);
    x.copy_x(map, stages, stage);
  }
}

}  // namespace optserve::kernels

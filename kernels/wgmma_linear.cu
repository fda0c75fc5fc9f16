// Two blocks of a cluster multiply the same rows of x by different outputs, step by step alike; each brings half of x to
// both. A tile is what a cluster makes: twice 128 or 256 outputs by up to 256 rows. The units of all tiles stand in one
// row that is cut into equal spans, one for each cluster that fits the device: none has more to do than another, whatever
// the shape. One warp of a block asks for codes (bulk copies, packed as they are) and for x (a tensor map, swizzled) and
// runs up to kStages ahead; codes of the first stages before the kernel before this one has ended. Warpgroups of 64
// outputs each read their codes, make fp16 of them in registers, which is the operand A of wgmma as it stands, and
// multiply by x in shared memory. The codes of the next unit are converted while this one is multiplied.
//
// A tile that spans have cut is finished by the cluster that has its first unit, which adds what the clusters behind it
// have of it, in their order. They begin with that part and leave it in memory early; so whoever waits has work behind
// it already. All clusters are resident at once, and none waits for one before it, so the waits end.
#include <algorithm>

#include "kernels/dependent_launch.cuh"
#include "kernels/element_ops.cuh"
#include "kernels/hopper_ptx.cuh"
#include "kernels/hopper_tensor_map.h"
#include "kernels/quantised_values.cuh"
#include "kernels/wgmma_linear.h"

namespace optserve::kernels {
namespace {
constexpr int kBoxColumns = 64, kRowBytes = 128;  // of x: what a swizzle spans
constexpr int kSharedAlignment = 1024;            // of what is swizzled
constexpr int kCluster = 2;                       // blocks
constexpr int kGroups = 2;                        // warpgroups of a block that multiply
constexpr int kMultiplying = 128 * kGroups;       // their threads
constexpr int kSpanUnitsMin = 8;                  // a shorter span takes less time than handing over its sums
constexpr int64_t kCellsMax = 128 * 256;          // of a block's part of a tile
constexpr int kStagesMax = 16;
constexpr int kCopyRegisters = 40, kMultiplyRegisters = 232;  // of a thread, where shares are not equal

// kRows rows by kTall bands of 64 outputs of a warpgroup.
template <WeightFormat kFormat, int kRows, int kTall>
struct Shape {
  static constexpr int kBands = kGroups * kTall;  // of a block, as what follows
  static constexpr int kTileRows = kRows;
  static constexpr int kSums = kRows / 2;  // of a thread and a band
  static constexpr bool kGrouped = kFormat == WeightFormat::kInt4;
  static constexpr int kSumRegisters = kTall * kSums * (kGrouped ? 2 : 1), kOperandRegisters = kTall * (kGrouped ? 32 : 16);
  static constexpr bool kLarge = kSumRegisters >= 64;  // needs more registers than an equal share of them
  static constexpr bool kAhead = kSumRegisters + 2 * kOperandRegisters <= 192;  // keeps the operands of two units
  static constexpr int kThreads = kMultiplying + (kLarge ? 128 : 32);  // the first warp of the others copies
  static constexpr int kBandBytes = static_cast<int>(kBandOctets * kUnitBytes);  // of a unit
  static constexpr int kBoxes = static_cast<int>(unit_inputs(kFormat)) / kBoxColumns;
  static constexpr int kBoxBytes = kRows * kRowBytes;
  static constexpr int kXBytes = kBoxes * kBoxBytes;
  static constexpr int kWeightBytes = kBands * kBandBytes;
  static constexpr int kBandScaleBytes = kGrouped ? static_cast<int>(kBandOutputs) * 4 : 0;
  static constexpr int kScaleBytes = kBands * kBandScaleBytes;
  static constexpr int kStageBytes = kXBytes + kWeightBytes + (kScaleBytes + 1023) / 1024 * 1024;
  static constexpr int kStagesFit = (208 << 10) / kStageBytes;
  static constexpr int kStages = kStagesFit > kStagesMax ? kStagesMax : kStagesFit;
  static constexpr int kDataBytes = kStages * kStageBytes;
  static constexpr int kCells = kBands * static_cast<int>(kBandOutputs) * kRows;
  static constexpr int kBytes = kDataBytes + kSharedAlignment + 2 * kStages * 8;
  static_assert(kStages >= 2 && kCells <= kCellsMax);
  static constexpr int kColumns = kRows < 128 ? kRows : 128;  // of one multiplication
};

// The span of a cluster, and how it is cut into tiles.
template <class S>
struct Span {
  int units;      // of a tile
  int row_tiles;  // those of the same outputs follow each other
  int64_t begin, end;

  __device__ __forceinline__ Span(const QuantisedLinearArgs& args, int units_of_tile)
      : units(units_of_tile), row_tiles(static_cast<int>((args.rows + S::kTileRows - 1) / S::kTileRows)) {
    begin = begin_of(args, blockIdx.x / kCluster);
    end = begin_of(args, blockIdx.x / kCluster + 1);
  }
  __device__ __forceinline__ int64_t begin_of(const QuantisedLinearArgs& args, unsigned cluster) const {
    constexpr int kTileBands = kCluster * S::kBands;
    const int64_t tiles = (bands_of(args.out) + kTileBands - 1) / kTileBands * row_tiles;
    return tiles * units * cluster / (gridDim.x / kCluster);
  }
};

// Where a block's part of a tile lies.
template <class S>
struct Tile {
  int64_t band;
  int bands;  // that exist: none where the last tile is a block's width or less
  int row;

  __device__ __forceinline__ Tile(const QuantisedLinearArgs& args, const Span<S>& span, int64_t index)
      : band((index / span.row_tiles * kCluster + rank_in_cluster()) * S::kBands),
        bands(static_cast<int>(max(int64_t{0}, min(static_cast<int64_t>(S::kBands), bands_of(args.out) - band)))),
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

// Walks the units of a span and asks for them, one after the other.
template <class S>
class Asking {
 public:
  __device__ __forceinline__ Asking(const QuantisedLinearArgs& args, const Span<S>& span)
      : args_(args),
        span_(span),
        tile_index_(span.begin / span.units),
        tile_(args, span, tile_index_),
        unit_(static_cast<int>(span.begin % span.units)) {}

  // The codes of a unit, and its scales if it has its own: a lane for each band.
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

  // Its half of the rows, to both blocks.
  __device__ __forceinline__ void copy_x(const CUtensorMap& map, const Stages<S>& stages, int stage) const {
    if (threadIdx.x % 32 != 0) return;
    const int row = static_cast<int>(rank_in_cluster()) * (S::kTileRows / kCluster);
#pragma unroll
    for (int box = 0; box < S::kBoxes; ++box) {
      copy_box_to_all(stages.x(stage) + box * S::kBoxBytes + row * kRowBytes, map,
                      (unit_ * S::kBoxes + box) * kBoxColumns, tile_.row + row, stages.full(stage),
                      (1 << kCluster) - 1);
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

// The codes of a lane in the two octets of its warp, as operand A of each step.
template <WeightFormat kFormat, int kStep = 0>
__device__ __forceinline__ void convert(const uint32_t (&upper)[4], const uint32_t (&lower)[4],
                                        uint32_t (&a)[kUnitSteps<kFormat>][4]) {
  const StepPairs first = step_of<__half, kFormat, kStep>(upper), second = step_of<__half, kFormat, kStep>(lower);
  a[kStep][0] = first.low, a[kStep][1] = second.low, a[kStep][2] = first.high, a[kStep][3] = second.high;
  if constexpr (kStep + 1 < kUnitSteps<kFormat>) convert<kFormat, kStep + 1>(upper, lower, a);
}

__device__ __forceinline__ void read_words(uint32_t from, uint32_t (&words)[4]) {
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(from)
               : "memory");
}
__device__ __forceinline__ float read_float(uint32_t from) {
  float value;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(value) : "r"(from) : "memory");
  return value;
}

// The products of one warpgroup.
template <WeightFormat kFormat, int kRows, int kTall>
class Group {
 public:
  using S = Shape<kFormat, kRows, kTall>;
  static constexpr int kSteps = kUnitSteps<kFormat>;
  using Operands = uint32_t[kTall][kSteps][4];

  __device__ __forceinline__ explicit Group(const Stages<S>& stages) : stages_(stages) {}

  // Sums of the next `units` units of the span.
  __device__ __forceinline__ void multiply(int units) {
    Operands even, odd;
    load(done_, even);
    for (int i = 0; i < units; i += 2) {
      multiply_unit(even, odd, i == 0, i + 1 < units);
      if (i + 1 < units) multiply_unit(odd, even, false, i + 2 < units);
    }
  }

  // Leaves the sums of a part of a tile in memory.
  __device__ __forceinline__ void leave(const WgmmaScratch& scratch) const {
    float4* part = part_of(scratch, blockIdx.x);
#pragma unroll
    for (int i = 0; i < kAll; i += 4) {
      __stcg(part + i / 4 * kMultiplying, float4{sums_[i], sums_[i + 1], sums_[i + 2], sums_[i + 3]});
    }
    __threadfence();
    await_multiplying();
    if (threadIdx.x == 0) {
      asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(scratch.flags + blockIdx.x), "r"(1) : "memory");
    }
  }

  // Adds what the next `count` clusters leave(), once all of it is there: the parts of some of them at a time, so that
  // one wait for memory serves them together.
  __device__ __forceinline__ void add(const WgmmaScratch& scratch, int count) {
    if (count == 0) return;
    uint32_t* flags = scratch.flags + blockIdx.x + kCluster;
    for (int i = lane_; i < count; i += 32) {
      uint32_t there = 0;
      while (there == 0) {
        asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(there) : "l"(flags + i * kCluster) : "memory");
      }
    }
    __syncwarp();
    constexpr int kPiece = kAll < 32 ? kAll : 32, kAtOnce = 64 / kPiece;
#pragma unroll
    for (int piece = 0; piece < kAll; piece += kPiece) {
      for (int next = 0; next < count; next += kAtOnce) {
        float4 parts[kAtOnce][kPiece / 4];
#pragma unroll
        for (int j = 0; j < kAtOnce; ++j) {
          const float4* part = part_of(scratch, blockIdx.x + (next + j + 1) * kCluster) + piece / 4 * kMultiplying;
#pragma unroll
          for (int i = 0; i < kPiece / 4; ++i) {
            parts[j][i] = next + j < count ? __ldcg(part + i * kMultiplying) : float4{};
          }
        }
#pragma unroll
        for (int j = 0; j < kAtOnce; ++j) {
#pragma unroll
          for (int i = 0; i < kPiece / 4; ++i) {
            float* sums = sums_ + piece + 4 * i;
            sums[0] += parts[j][i].x, sums[1] += parts[j][i].y, sums[2] += parts[j][i].z, sums[3] += parts[j][i].w;
          }
        }
      }
    }
    await_multiplying();  // all warps have seen the flags
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kMultiplying) {
      flags[i * kCluster] = 0;  // for the next launch
    }
  }

  __device__ __forceinline__ void finish(const QuantisedLinearArgs& args, const Tile<S>& tile) const {
#pragma unroll
    for (int tall = 0; tall < kTall; ++tall) {
      finish_band(args, tile, first_output(tall), sums_ + tall * S::kSums);
    }
  }

 private:
  static constexpr int kAll = kTall * S::kSums;

  // Of a block's outputs, the first one of this warp in a band.
  __device__ __forceinline__ int first_output(int tall) const {
    return (warp_ / 4 * kTall + tall) * static_cast<int>(kBandOutputs) + warp_ % 4 * 16;
  }

  __device__ __forceinline__ void load(int i, Operands& a) const {
    const int stage = i % S::kStages;
    await(stages_.full(stage), i / S::kStages % 2);
#pragma unroll
    for (int tall = 0; tall < kTall; ++tall) {
      const uint32_t octet = static_cast<uint32_t>(first_output(tall)) / static_cast<uint32_t>(kOctet);
      const uint32_t from = stages_.weights(stage) + octet * static_cast<uint32_t>(kUnitBytes) + lane_ * 16;
      uint32_t upper[4], lower[4];
      read_words(from, upper);
      read_words(from + static_cast<uint32_t>(kUnitBytes), lower);
      convert<kFormat>(upper, lower, a[tall]);
    }
  }

  __device__ __forceinline__ void start(int i, const Operands& a, float* sums, bool fresh) const {
    const uint32_t x = stages_.x(i % S::kStages);
    begin_multiplying();
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const uint32_t box = x + step / 4 * S::kBoxBytes + step % 4 * 32;
#pragma unroll
      for (int tall = 0; tall < kTall; ++tall) {
#pragma unroll
        for (int column = 0; column < kRows; column += S::kColumns) {
          multiply_group<S::kColumns>(sums + tall * S::kSums + column / 2, a[tall][step],
                                      swizzled_rows(box + column * kRowBytes), step > 0 || !fresh);
        }
      }
    }
    end_batch();
  }

  // For both blocks, whose copies of x come here.
  __device__ __forceinline__ void release(int i) const {
    if (lane_ < kCluster) arrive_in(static_cast<uint32_t>(lane_), stages_.empty(i % S::kStages));
  }

  // Of this thread.
  __device__ __forceinline__ static float4* part_of(const WgmmaScratch& scratch, unsigned block) {
    return reinterpret_cast<float4*>(scratch.parts + static_cast<int64_t>(block) * S::kCells) + threadIdx.x;
  }

  // Until all multiplying threads have come here.
  __device__ __forceinline__ static void await_multiplying() {
    asm volatile("bar.sync 1, %0;" ::"n"(kMultiplying) : "memory");
  }

  // Lanes of two neighbouring outputs exchange rows, so that each writes pairs of outputs.
  __device__ __forceinline__ void finish_band(const QuantisedLinearArgs& args, const Tile<S>& tile, int first_of_warp,
                                              const float* sums) const {
    const bool odd = lane_ / 4 % 2 != 0;
    const bool in_pairs = args.y_stride % 2 == 0 && reinterpret_cast<uintptr_t>(args.y) % 8 == 0;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t output = tile.band * kBandOutputs + first_of_warp + lane_ / 4 + half * 8;
      const bool exists = output < args.out;
      const float scale = !S::kGrouped && exists ? args.scales[output] : 1.0f;
      const float bias =
          args.bias != nullptr && exists ? __half2float(static_cast<const __half*>(args.bias)[output]) : 0;
#pragma unroll
      for (int i = 0; i < S::kSums; i += 4) {
        float own[2];
#pragma unroll
        for (int row = 0; row < 2; ++row) {
          own[row] = sums[i + half * 2 + row] * scale + bias;
          if (args.relu && own[row] < 0) own[row] = 0;
        }
        const float other = __shfl_xor_sync(0xffffffffu, odd ? own[0] : own[1], 4);
        const int row = tile.row + i * 2 + lane_ % 4 * 2 + (odd ? 1 : 0);
        const int64_t first = output - (odd ? 1 : 0);
        if (row >= args.rows || first >= args.out) continue;
        const float2 pair = odd ? float2{other, own[1]} : float2{own[0], other};
        store(args, row * args.y_stride + first, pair, in_pairs, first + 1 < args.out);
      }
    }
  }

  __device__ __forceinline__ static void store(const QuantisedLinearArgs& args, int64_t at, float2 pair, bool in_pairs,
                                               bool both) {
    if (args.out_f32) {
      float* y = static_cast<float*>(args.y) + at;
      if (in_pairs && both) {
        *reinterpret_cast<float2*>(y) = pair;
      } else {
        y[0] = pair.x;
        if (both) y[1] = pair.y;
      }
    } else {
      __half* y = static_cast<__half*>(args.y) + at;
      if (in_pairs && both) {
        *reinterpret_cast<__half2*>(y) = __floats2half2_rn(pair.x, pair.y);
      } else {
        y[0] = __float2half_rn(pair.x);
        if (both) y[1] = __float2half_rn(pair.y);
      }
    }
  }

  // Multiplies the oldest unit by x and, where there is one more, makes its operands `next`. Sums of a group of inputs
  // are scaled before they are added.
  __device__ __forceinline__ void multiply_unit(const Operands& a, Operands& next, bool fresh, bool more) {
    float group[S::kGrouped ? kAll : 1], scales[kTall][2];
    if constexpr (S::kGrouped) {
#pragma unroll
      for (int tall = 0; tall < kTall; ++tall) {
        const uint32_t from = stages_.scales(done_ % S::kStages) + (first_output(tall) + lane_ / 4) * 4;
        scales[tall][0] = read_float(from), scales[tall][1] = read_float(from + 32);
      }
      start(done_, a, group, true);
    } else {
      start(done_, a, sums_, fresh);
    }
    if (S::kAhead && more) load(done_ + 1, next);
    await_batches<0>();
    release(done_++);
    if (!S::kAhead && more) load(done_, next);
    if constexpr (S::kGrouped) {
#pragma unroll
      for (int j = 0; j < kAll; ++j) {
        const float scaled = group[j] * scales[j / S::kSums][j % 4 / 2];
        sums_[j] = fresh ? scaled : sums_[j] + scaled;
      }
    }
  }

  const Stages<S>& stages_;
  int warp_ = static_cast<int>(threadIdx.x / 32);
  int lane_ = static_cast<int>(threadIdx.x % 32);
  int done_ = 0;  // units
  float sums_[kAll];
};

// The tiles of a span, one after the other.
template <WeightFormat kFormat, int kRows, int kTall>
__device__ __forceinline__ void multiply_span(const QuantisedLinearArgs& args, const WgmmaScratch& scratch,
                                              const Span<Shape<kFormat, kRows, kTall>>& span,
                                              const Stages<Shape<kFormat, kRows, kTall>>& stages) {
  using S = Shape<kFormat, kRows, kTall>;
  Group<kFormat, kRows, kTall> group(stages);
  for (int64_t at = span.begin; at < span.end;) {
    const int64_t index = at / span.units, tile_end = (index + 1) * span.units, stop = min(tile_end, span.end);
    const bool begins = at == index * span.units;
    group.multiply(static_cast<int>(stop - at));
    wait_for_previous();
    at = stop;
    if (!begins) {
      group.leave(scratch);
      continue;
    }
    int cuts = 0;
    while (span.begin_of(args, blockIdx.x / kCluster + 1 + cuts) < tile_end) ++cuts;
    group.add(scratch, cuts);
    group.finish(args, Tile<S>(args, span, index));
  }
}

template <WeightFormat kFormat, int kRows, int kTall>
__global__ void __cluster_dims__(kCluster) __launch_bounds__((Shape<kFormat, kRows, kTall>::kThreads), 1)
    wgmma_kernel(const __grid_constant__ CUtensorMap map, const __grid_constant__ QuantisedLinearArgs args,
                 const __grid_constant__ WgmmaScratch scratch) {
  using S = Shape<kFormat, kRows, kTall>;
  extern __shared__ char shared[];
  allow_next();
  const Stages<S> stages(static_cast<uint32_t>(__cvta_generic_to_shared(shared)));
  const Span<S> span(args, static_cast<int>(units_of(kFormat, args.in)));
  if (threadIdx.x == 0) {
    for (int i = 0; i < S::kStages; ++i) {
      init_barrier(stages.full(i), 1);
      init_barrier(stages.empty(i), kMultiplying / 32 * kCluster);
    }
    fence_barriers();
  }
  await_cluster();
  // Each role is one branch to its end, so that each can have its own number of registers. A block ends when the other
  // one of its cluster will write nothing more to it.
  if (threadIdx.x >= kMultiplying) {
    if constexpr (S::kLarge) give_registers<kCopyRegisters>();
    if (threadIdx.x < kMultiplying + 32) copy_all(args, map, span, stages);
    await_cluster();
  } else {
    if constexpr (S::kLarge) take_registers<kMultiplyRegisters>();
    multiply_span<kFormat, kRows, kTall>(args, scratch, span, stages);
    await_cluster();
  }
}

// Clusters that are resident at once; all GPUs are of one kind.
template <WeightFormat kFormat, int kRows, int kTall>
int resident_clusters(const DeviceLimits& device) {
  using S = Shape<kFormat, kRows, kTall>;
  static const int count = [&] {
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = kCluster, attribute.val.clusterDim.y = 1, attribute.val.clusterDim.z = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(device.multiprocessors / kCluster * kCluster));
    config.blockDim = dim3(S::kThreads);
    config.dynamicSmemBytes = S::kBytes;
    config.attrs = &attribute;
    config.numAttrs = 1;
    int clusters = 0;
    const cudaError_t error =
        cudaOccupancyMaxActiveClusters(&clusters, wgmma_kernel<kFormat, kRows, kTall>, &config);
    return error == cudaSuccess ? std::min(clusters, device.multiprocessors / kCluster) : 0;
  }();
  return count;
}

template <WeightFormat kFormat, int kRows, int kTall>
cudaError_t launch(const QuantisedLinearArgs& args, const WgmmaScratch& scratch, const DeviceLimits& device,
                   cudaStream_t stream) {
  using S = Shape<kFormat, kRows, kTall>;
  constexpr auto kKernel = wgmma_kernel<kFormat, kRows, kTall>;
  const cudaError_t error = cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kBytes);
  if (error != cudaSuccess) return error;
  const int resident = resident_clusters<kFormat, kRows, kTall>(device);
  CUtensorMap map;
  if (resident == 0 || !make_half_map(args.x, {args.rows, args.in}, args.rows > 1 ? args.x_stride : args.in,
                                      kRows / kCluster, map))
    return cudaErrorInvalidValue;
  constexpr int kTileBands = kCluster * S::kBands;
  const int64_t tiles = (bands_of(args.out) + kTileBands - 1) / kTileBands * ((args.rows + kRows - 1) / kRows);
  const int64_t spans_max = std::max(tiles, tiles * units_of(kFormat, args.in) / kSpanUnitsMin);
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(resident, spans_max) * kCluster);
  return launch_dependent<kKernel>({dim3(blocks), dim3(S::kThreads), S::kBytes}, stream, map, args, scratch);
}

// Calls make(constants: rows, bands of a warpgroup). Sums of int4 are kept twice: registers hold fewer.
template <WeightFormat kFormat, class Make>
auto with_tile(int64_t rows, const WgmmaWay& way, const Make& make) {
  using One = std::integral_constant<int, 1>;
  using Two = std::integral_constant<int, 2>;
  if (rows <= 32) return make(std::integral_constant<int, 32>(), One());
  if constexpr (kFormat != WeightFormat::kInt4) {
    if (rows <= 64 && way.outputs == 256) return make(std::integral_constant<int, 64>(), Two());
    if (way.outputs == 256) return make(std::integral_constant<int, 128>(), Two());
    if (rows > 128) return make(std::integral_constant<int, 256>(), One());
  }
  if (rows <= 64) return make(std::integral_constant<int, 64>(), One());
  return make(std::integral_constant<int, 128>(), One());
}

template <WeightFormat kFormat>
cudaError_t launch_tile(const QuantisedLinearArgs& args, const WgmmaWay& way, const WgmmaScratch& scratch,
                        const DeviceLimits& device, cudaStream_t stream) {
  return with_tile<kFormat>(args.rows, way, [&](auto rows, auto tall) {
    return launch<kFormat, rows.value, tall.value>(args, scratch, device, stream);
  });
}

template <WeightFormat kFormat>
int shared_bytes(int64_t rows, const WgmmaWay& way) {
  return with_tile<kFormat>(
      rows, way, [](auto tile_rows, auto tall) { return Shape<kFormat, tile_rows.value, tall.value>::kBytes; });
}

}  // namespace

bool can_wgmma_linear(const QuantisedLinearArgs& args, const WgmmaWay& way, const DeviceLimits& device) {
  if (device.compute_capability != 90 || args.element != Element::kF16) return false;
  if (way.outputs == 256 && (args.format == WeightFormat::kInt4 || args.rows <= 32)) return false;  // has no such tile
  if (args.format == WeightFormat::kPlain || args.in == 0 || args.in > (1 << 28) || args.in % 8 != 0) return false;
  if (args.rows > 1 && args.x_stride % 8 != 0) return false;
  if (!aligned_to_packs({args.x, args.values, args.scales}) || args.rows > (1 << 28)) return false;
  const int bytes = args.format == WeightFormat::kInt4  ? shared_bytes<WeightFormat::kInt4>(args.rows, way)
                    : args.format == WeightFormat::kFp8 ? shared_bytes<WeightFormat::kFp8>(args.rows, way)
                                                        : shared_bytes<WeightFormat::kInt8>(args.rows, way);
  return bytes <= device.shared_bytes_max && encode_tiled() != nullptr;
}

size_t wgmma_scratch_bytes(const DeviceLimits& device) {
  return static_cast<size_t>(device.multiprocessors) * (kCellsMax * sizeof(float) + sizeof(uint32_t));
}

WgmmaScratch wgmma_scratch(void* memory, const DeviceLimits& device) {
  auto* parts = static_cast<float*>(memory);
  return {parts, reinterpret_cast<uint32_t*>(parts + device.multiprocessors * kCellsMax)};
}

cudaError_t wgmma_linear(const QuantisedLinearArgs& args, const WgmmaWay& way, const WgmmaScratch& scratch,
                         const DeviceLimits& device, cudaStream_t stream) {
  if (!can_wgmma_linear(args, way, device)) return cudaErrorInvalidValue;
  if (args.rows == 0 || args.out == 0) return cudaSuccess;
  if (args.format == WeightFormat::kInt4) return launch_tile<WeightFormat::kInt4>(args, way, scratch, device, stream);
  if (args.format == WeightFormat::kFp8) return launch_tile<WeightFormat::kFp8>(args, way, scratch, device, stream);
  return launch_tile<WeightFormat::kInt8>(args, way, scratch, device, stream);
}

}  // namespace optserve::kernels

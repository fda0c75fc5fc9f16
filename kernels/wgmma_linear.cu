// The units of all tiles, 128 or 256 outputs by up to 256 rows, stand in one row that is cut into equal spans, one for
// each block that fits the device: none has more to do than another, whatever the shape. One warp of a block asks for
// codes (bulk copies, packed as they are) and for x (a tensor map, swizzled) and runs up to kStages ahead; codes of the
// first stages before the kernel before this one has ended. Warpgroups of 64 outputs each read their codes, make fp16
// of them in registers, which is the operand A of wgmma as it stands, and multiply by x in shared memory; one warpgroup
// converts while another multiplies.
//
// A tile that spans have cut is finished by the block that has its first unit, which adds what the blocks behind it
// have of it, in their order. They begin with that part and leave it in memory early; so whoever waits has work behind
// it already. All blocks are resident at once, and none waits for one before it, so the waits end.
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
constexpr int kBlocksEachMax = 2;                 // on a multiprocessor
constexpr int kSpanUnitsMin = 8;                  // a shorter span takes less time than handing over its sums
constexpr int64_t kCellsEachMax = 128 * 256;      // of their tiles
__host__ __device__ constexpr int copy_registers(int groups) { return groups == 2 ? 40 : 32; }  // of a thread
__host__ __device__ constexpr int multiply_registers(int groups) { return groups == 2 ? 232 : 112; }

template <WeightFormat kFormat, int kRows, int kGroups>
struct Shape {
  static constexpr int kBands = kGroups;
  static constexpr int kTileRows = kRows;
  static constexpr int kOutputs = 64 * kGroups;
  static constexpr bool kLarge = kRows >= 128;        // needs more registers than an equal share of them
  static constexpr int kMultiplying = 128 * kGroups;  // threads
  static constexpr int kThreads = kMultiplying + (kLarge ? 128 : 32);            // the first warp of the others copies
  static constexpr int kBandBytes = static_cast<int>(kBandOctets * kUnitBytes);  // of a unit
  static constexpr bool kGrouped = kFormat == WeightFormat::kInt4;
  static constexpr int kBoxes = static_cast<int>(unit_inputs(kFormat)) / kBoxColumns;
  static constexpr int kBoxBytes = kRows * kRowBytes;
  static constexpr int kXBytes = kBoxes * kBoxBytes;
  static constexpr int kWeightBytes = kGroups * kBandBytes;
  static constexpr int kBandScaleBytes = kGrouped ? static_cast<int>(kBandOutputs) * 4 : 0;
  static constexpr int kScaleBytes = kGroups * kBandScaleBytes;
  static constexpr int kStageBytes = kXBytes + kWeightBytes + (kScaleBytes + 1023) / 1024 * 1024;
  static constexpr int kBlocks = kRows <= 64 && kGroups == 2 ? 2 : 1;  // a multiprocessor
  static constexpr int kStagesFit = ((kBlocks == 2 ? 104 : 200) << 10) / kStageBytes;
  static constexpr int kStages = kStagesFit > 8 ? 8 : kStagesFit;
  static constexpr int kDataBytes = kStages * kStageBytes;
  static constexpr int kSums = kRows / 2;  // of a thread
  static constexpr int kTileCells = kOutputs * kRows;
  static constexpr int kBytes = kDataBytes + kSharedAlignment + 2 * kStages * 8;
  static_assert(kStages >= 2 && kBlocks * kTileCells <= kCellsEachMax && kBlocks <= kBlocksEachMax);
  static constexpr int kColumns = kRows < 128 ? kRows : 128;  // of one multiplication
};

// The span of a block, and how it is cut into tiles.
template <class S>
struct Span {
  int units;      // of a tile
  int row_tiles;  // those of the same outputs follow each other
  int64_t begin, end;

  __device__ __forceinline__ Span(const QuantisedLinearArgs& args, int units_of_tile)
      : units(units_of_tile), row_tiles(static_cast<int>((args.rows + S::kTileRows - 1) / S::kTileRows)) {
    begin = begin_of(args, blockIdx.x);
    end = begin_of(args, blockIdx.x + 1);
  }
  __device__ __forceinline__ int64_t begin_of(const QuantisedLinearArgs& args, unsigned block) const {
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
template <WeightFormat kFormat, int kRows, int kGroups>
class Group {
 public:
  using S = Shape<kFormat, kRows, kGroups>;
  static constexpr int kSteps = kUnitSteps<kFormat>;

  __device__ __forceinline__ explicit Group(const Stages<S>& stages) : stages_(stages) {}

  // Sums of the next `units` units of the span.
  __device__ __forceinline__ void multiply(int units) {
    for (int i = 0; i < units; ++i, ++done_) {
      uint32_t a[kSteps][4];
      load(done_, a);
      if constexpr (S::kGrouped) {
        multiply_grouped(done_, a, i == 0);
      } else {
        start(done_, a, sums_, i == 0);
        await_batches<0>();
        release(done_);
      }
    }
  }

  // Leaves the sums of a part of a tile in memory.
  __device__ __forceinline__ void leave(const WgmmaScratch& scratch) const {
    float4* part = part_of(scratch, blockIdx.x);
#pragma unroll
    for (int i = 0; i < S::kSums; i += 4) {
      __stcg(part + i / 4 * S::kMultiplying, float4{sums_[i], sums_[i + 1], sums_[i + 2], sums_[i + 3]});
    }
    __threadfence();
    await_multiplying();
    if (threadIdx.x == 0) {
      asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(scratch.flags + blockIdx.x), "r"(1) : "memory");
    }
  }

  // Adds what the next `count` blocks leave(), once all of it is there.
  __device__ __forceinline__ void add(const WgmmaScratch& scratch, int count) {
    if (count == 0) return;
    uint32_t* flags = scratch.flags + blockIdx.x + 1;
    for (int i = lane_; i < count; i += 32) {
      uint32_t there = 0;
      while (there == 0) asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(there) : "l"(flags + i) : "memory");
    }
    __syncwarp();
    for (int block = 1; block <= count; ++block) {
      const float4* part = part_of(scratch, blockIdx.x + block);
#pragma unroll
      for (int i = 0; i < S::kSums; i += 4) {
        const float4 sums = __ldcg(part + i / 4 * S::kMultiplying);
        sums_[i] += sums.x, sums_[i + 1] += sums.y, sums_[i + 2] += sums.z, sums_[i + 3] += sums.w;
      }
    }
    await_multiplying();  // all warps have seen the flags
    for (int i = static_cast<int>(threadIdx.x); i < count; i += S::kMultiplying) flags[i] = 0;  // for the next launch
  }

  // Lanes of two neighbouring outputs exchange rows, so that each writes pairs of outputs.
  __device__ __forceinline__ void finish(const QuantisedLinearArgs& args, const Tile<S>& tile) const {
    const bool odd = lane_ / 4 % 2 != 0;
    const bool in_pairs = args.y_stride % 2 == 0 && reinterpret_cast<uintptr_t>(args.y) % 8 == 0;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t output = tile.band * kBandOutputs + warp_ * 16 + lane_ / 4 + half * 8;
      const bool exists = output < args.out;
      const float scale = !S::kGrouped && exists ? args.scales[output] : 1.0f;
      const float bias =
          args.bias != nullptr && exists ? __half2float(static_cast<const __half*>(args.bias)[output]) : 0;
#pragma unroll
      for (int i = 0; i < S::kSums; i += 4) {
        float own[2];
#pragma unroll
        for (int row = 0; row < 2; ++row) {
          own[row] = sums_[i + half * 2 + row] * scale + bias;
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

 private:
  __device__ __forceinline__ void load(int i, uint32_t (&a)[kSteps][4]) const {
    const int stage = i % S::kStages;
    await(stages_.full(stage), i / S::kStages % 2);
    const uint32_t from = stages_.weights(stage) + warp_ * 2 * static_cast<uint32_t>(kUnitBytes) + lane_ * 16;
    uint32_t upper[4], lower[4];
    read_words(from, upper);
    read_words(from + static_cast<uint32_t>(kUnitBytes), lower);
    convert<kFormat>(upper, lower, a);
  }

  __device__ __forceinline__ void start(int i, const uint32_t (&a)[kSteps][4], float* sums, bool fresh) const {
    const uint32_t x = stages_.x(i % S::kStages);
    begin_multiplying();
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const uint32_t box = x + step / 4 * S::kBoxBytes + step % 4 * 32;
#pragma unroll
      for (int column = 0; column < kRows; column += S::kColumns) {
        multiply_group<S::kColumns>(sums + column / 2, a[step], swizzled_rows(box + column * kRowBytes),
                                    step > 0 || !fresh);
      }
    }
    end_batch();
  }

  __device__ __forceinline__ void release(int i) const {
    if (lane_ == 0) arrive(stages_.empty(i % S::kStages));
  }

  // Of this thread.
  __device__ __forceinline__ static float4* part_of(const WgmmaScratch& scratch, unsigned block) {
    return reinterpret_cast<float4*>(scratch.parts + static_cast<int64_t>(block) * S::kTileCells) + threadIdx.x;
  }

  // Until all multiplying threads have come here.
  __device__ __forceinline__ static void await_multiplying() {
    asm volatile("bar.sync 1, %0;" ::"n"(S::kMultiplying) : "memory");
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

  // Sums of a group of inputs are scaled before they are added.
  __device__ __forceinline__ void multiply_grouped(int i, const uint32_t (&a)[kSteps][4], bool fresh) {
    float group[S::kSums];
    const uint32_t scales = stages_.scales(i % S::kStages) + (warp_ * 16 + lane_ / 4) * 4;
    const float upper = read_float(scales), lower = read_float(scales + 32);
    start(i, a, group, true);
    await_batches<0>();
    release(i);
#pragma unroll
    for (int j = 0; j < S::kSums; ++j) {
      const float scaled = group[j] * (j % 4 < 2 ? upper : lower);
      sums_[j] = fresh ? scaled : sums_[j] + scaled;
    }
  }

  const Stages<S>& stages_;
  int warp_ = static_cast<int>(threadIdx.x / 32);
  int lane_ = static_cast<int>(threadIdx.x % 32);
  int done_ = 0;  // units
  float sums_[S::kSums];
};

// The tiles of a span, one after the other.
template <WeightFormat kFormat, int kRows, int kGroups>
__device__ __forceinline__ void multiply_span(const QuantisedLinearArgs& args, const WgmmaScratch& scratch,
                                              const Span<Shape<kFormat, kRows, kGroups>>& span,
                                              const Stages<Shape<kFormat, kRows, kGroups>>& stages) {
  using S = Shape<kFormat, kRows, kGroups>;
  Group<kFormat, kRows, kGroups> group(stages);
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
    while (span.begin_of(args, blockIdx.x + 1 + cuts) < tile_end) ++cuts;
    group.add(scratch, cuts);
    group.finish(args, Tile<S>(args, span, index));
  }
}

template <WeightFormat kFormat, int kRows, int kGroups>
__global__ void __launch_bounds__((Shape<kFormat, kRows, kGroups>::kThreads), (Shape<kFormat, kRows, kGroups>::kBlocks))
    wgmma_kernel(const __grid_constant__ CUtensorMap map, const __grid_constant__ QuantisedLinearArgs args,
                 const __grid_constant__ WgmmaScratch scratch) {
  using S = Shape<kFormat, kRows, kGroups>;
  extern __shared__ char shared[];
  allow_next();
  const Stages<S> stages(static_cast<uint32_t>(__cvta_generic_to_shared(shared)));
  const Span<S> span(args, static_cast<int>(units_of(kFormat, args.in)));
  if (threadIdx.x == 0) {
    for (int i = 0; i < S::kStages; ++i) {
      init_barrier(stages.full(i), 1);
      init_barrier(stages.empty(i), 4 * kGroups);
    }
    fence_barriers();
  }
  __syncthreads();
  // Each role is one branch to its end, so that each can have its own number of registers.
  if (threadIdx.x >= S::kMultiplying) {
    if constexpr (S::kLarge) give_registers<copy_registers(kGroups)>();
    if (threadIdx.x < S::kMultiplying + 32) copy_all(args, map, span, stages);
  } else {
    if constexpr (S::kLarge) take_registers<multiply_registers(kGroups)>();
    multiply_span<kFormat, kRows, kGroups>(args, scratch, span, stages);
  }
}

template <WeightFormat kFormat, int kRows, int kGroups>
cudaError_t launch(const QuantisedLinearArgs& args, const WgmmaScratch& scratch, const DeviceLimits& device,
                   cudaStream_t stream) {
  using S = Shape<kFormat, kRows, kGroups>;
  constexpr auto kKernel = wgmma_kernel<kFormat, kRows, kGroups>;
  cudaError_t error = cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kBytes);
  if (error != cudaSuccess) return error;
  static const int resident = [] {  // all GPUs are of one kind
    int blocks = 0;
    return cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kKernel, S::kThreads, S::kBytes) == cudaSuccess
               ? blocks
               : 0;
  }();
  CUtensorMap map;
  if (resident == 0 ||
      !make_half_map(args.x, {args.rows, args.in}, args.rows > 1 ? args.x_stride : args.in, kRows, map)) {
    return cudaErrorInvalidValue;
  }
  const int64_t tiles = (bands_of(args.out) + S::kBands - 1) / S::kBands * ((args.rows + kRows - 1) / kRows);
  const int64_t spans_max = std::max(tiles, tiles * units_of(kFormat, args.in) / kSpanUnitsMin);
  const auto blocks =
      static_cast<unsigned>(std::min<int64_t>(std::min(resident, S::kBlocks) * device.multiprocessors, spans_max));
  return launch_dependent<kKernel>({dim3(blocks), dim3(S::kThreads), S::kBytes}, stream, map, args, scratch);
}

template <int kValue>
using Constant = std::integral_constant<int, kValue>;

// Calls make(constants of rows and groups). Sums of int4 are kept twice: 128 rows are what registers hold.
template <WeightFormat kFormat, class Make>
auto with_tile(int64_t rows, const WgmmaWay& way, const Make& make) {
  const bool wide = way.outputs == 256;
  if (rows <= 32) return wide ? make(Constant<32>(), Constant<4>()) : make(Constant<32>(), Constant<2>());
  if (rows <= 64) return wide ? make(Constant<64>(), Constant<4>()) : make(Constant<64>(), Constant<2>());
  if constexpr (kFormat != WeightFormat::kInt4) {
    if (rows > 128 && !wide) return make(Constant<256>(), Constant<2>());
    if (wide) return make(Constant<128>(), Constant<4>());
  }
  return make(Constant<128>(), Constant<2>());
}

template <WeightFormat kFormat>
cudaError_t launch_tile(const QuantisedLinearArgs& args, const WgmmaWay& way, const WgmmaScratch& scratch,
                        const DeviceLimits& device, cudaStream_t stream) {
  return with_tile<kFormat>(args.rows, way, [&](auto rows, auto groups) {
    return launch<kFormat, rows.value, groups.value>(args, scratch, device, stream);
  });
}

template <WeightFormat kFormat>
int shared_bytes(int64_t rows, const WgmmaWay& way) {
  return with_tile<kFormat>(
      rows, way, [](auto tile_rows, auto groups) { return Shape<kFormat, tile_rows.value, groups.value>::kBytes; });
}

}  // namespace

bool can_wgmma_linear(const QuantisedLinearArgs& args, const WgmmaWay& way, const DeviceLimits& device) {
  if (device.compute_capability != 90 || args.element != Element::kF16) return false;
  if (args.format == WeightFormat::kPlain || args.in == 0 || args.in > (1 << 28) || args.in % 8 != 0) return false;
  if (args.rows > 1 && args.x_stride % 8 != 0) return false;
  if (!aligned_to_packs({args.x, args.values, args.scales}) || args.rows > (1 << 28)) return false;
  const int bytes = args.format == WeightFormat::kInt4  ? shared_bytes<WeightFormat::kInt4>(args.rows, way)
                    : args.format == WeightFormat::kFp8 ? shared_bytes<WeightFormat::kFp8>(args.rows, way)
                                                        : shared_bytes<WeightFormat::kInt8>(args.rows, way);
  return bytes <= device.shared_bytes_max && encode_tiled() != nullptr;
}

size_t wgmma_scratch_bytes(const DeviceLimits& device) {
  return static_cast<size_t>(device.multiprocessors) *
         (kCellsEachMax * sizeof(float) + kBlocksEachMax * sizeof(uint32_t));
}

WgmmaScratch wgmma_scratch(void* memory, const DeviceLimits& device) {
  auto* parts = static_cast<float*>(memory);
  return {parts, reinterpret_cast<uint32_t*>(parts + device.multiprocessors * kCellsEachMax)};
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

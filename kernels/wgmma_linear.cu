// A tile is 128 or 192 outputs by up to 256 rows. One warp of a block requests codes (by bulk copies, in their packed
// order) and x (by a tensor map, swizzled), up to kStages ahead; it requests the codes of the first stages before the
// previous kernel has ended. Warpgroups of 64 outputs each read their codes, convert them to fp16 in registers, where
// they are operand A of wgmma without any reordering, and multiply them by x in shared memory. Meanwhile, this
// warpgroup or another converts the codes of the next unit.
//
// There are two ways to share the work. Split: the blocks of a cluster share the inputs of one tile, then exchange sums
// through shared memory, and each finishes some rows of the tile. Spans: the units of all tiles form one sequence that
// is cut into equal parts, one for each block that fits the device, so that all blocks have the same amount of work,
// whatever the shape. A tile that is cut in this way is finished by the block that has its first unit, which adds, in
// order, what the blocks after it have computed of the tile. Those begin with that part and store it early, so it is
// usually there when it is needed. All blocks are resident at once, and none waits for one before it, so the waits end.
#include <algorithm>

#include "kernels/element_ops.cuh"
#include "kernels/hopper_tensor_map.h"
#include "kernels/quantised_values.cuh"
#include "kernels/wgmma_stages.cuh"

namespace optserve::kernels {
namespace {
constexpr int kSpanUnitsMin = 8;              // computing a shorter span takes less time than handing over its sums
constexpr int64_t kCellsEachMax = 128 * 256;  // of the tiles of a multiprocessor

// A lane's codes in the two octets of its warp, as operand A of each step.
template <WeightFormat kFormat, int kStep = 0>
__device__ __forceinline__ void convert(const uint32_t (&upper)[4], const uint32_t (&lower)[4],
                                        uint32_t (&a)[kUnitSteps<kFormat>][4]) {
  const StepPairs first = step_of<__half, kFormat, kStep>(upper), second = step_of<__half, kFormat, kStep>(lower);
  a[kStep][0] = first.low, a[kStep][1] = second.low, a[kStep][2] = first.high, a[kStep][3] = second.high;
  if constexpr (kStep + 1 < kUnitSteps<kFormat>) convert<kFormat, kStep + 1>(upper, lower, a);
}

// The products of one warpgroup.
template <class S>
class Group {
 public:
  static constexpr WeightFormat kFormat = S::kFormat;
  static constexpr int kSteps = kUnitSteps<kFormat>;
  using Operands = uint32_t[kSteps][4];

  __device__ __forceinline__ explicit Group(const Stages<S>& stages) : stages_(stages) {}

  // Computes the sums of the next `units` units of the span.
  __device__ __forceinline__ void multiply(int units) {
    if constexpr (S::kGrouped) {
      for (int i = 0; i < units; ++i) multiply_group_of_inputs(i == 0);
    } else if constexpr (S::kAhead) {
      Operands even, odd;
      load(done_, even);
      for (int i = 0; i < units; i += 2) {
        multiply_and_load(even, odd, i == 0, i + 1 < units);
        if (i + 1 < units) multiply_and_load(odd, even, false, i + 2 < units);
      }
    } else {
      for (int i = 0; i < units; ++i) multiply_unit(sums_, i == 0);
    }
  }

  // Stores the sums of a part of a tile in memory.
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

  // Adds what the next `count` blocks leave(), once it is all there.
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

  // Hands the other blocks of the cluster their rows of the tile, and adds their sums of this block's rows, in the
  // order of the blocks. Piece p of four sums belongs to block p * parts / kPieces.
  __device__ __forceinline__ void exchange(uint32_t rank, int parts) {
    await_cluster();  // no block reads its stages any more
    const int each = kPieces / parts;
    int shift = 31 - __clz(each);
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
      const auto owner = static_cast<uint32_t>(p >> shift);
      if (owner == rank) continue;
      const uint32_t at = stages_.data + ((rank * each + (p & (each - 1))) * S::kMultiplying + threadIdx.x) * 16;
      store_in_cluster(address_in(owner, at), {sums_[4 * p], sums_[4 * p + 1], sums_[4 * p + 2], sums_[4 * p + 3]});
    }
    await_cluster();
    asm volatile("" : "+r"(shift));  // so that the compiler keeps no addresses from above
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
      if (static_cast<uint32_t>(p >> shift) != rank) continue;
      const float own[4] = {sums_[4 * p], sums_[4 * p + 1], sums_[4 * p + 2], sums_[4 * p + 3]};
      float total[4] = {};
      for (uint32_t block = 0; block < static_cast<uint32_t>(parts); ++block) {
        uint32_t words[4];
        read_words(stages_.data + ((block * each + (p & (each - 1))) * S::kMultiplying + threadIdx.x) * 16, words);
#pragma unroll
        for (int i = 0; i < 4; ++i) total[i] += block == rank ? own[i] : __uint_as_float(words[i]);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) sums_[4 * p + i] = total[i];
    }
  }

  // Writes the rows of block `rank` of `parts`. Lanes of two adjacent outputs exchange rows, so that each writes pairs
  // of outputs.
  __device__ __forceinline__ void finish(const QuantisedLinearArgs& args, const Tile<S>& tile, uint32_t rank,
                                         int parts) const {
    const bool odd = lane_ / 4 % 2 != 0;
    const bool in_pairs = args.y_stride % 2 == 0 && reinterpret_cast<uintptr_t>(args.y) % 8 == 0;
    int shift = 31 - __clz(kPieces / parts);
    asm volatile("" : "+r"(shift));
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t output = tile.band * kBandOutputs + warp_ * 16 + lane_ / 4 + half * 8;
      const bool exists = output < args.out;
      const float scale = !S::kGrouped && exists ? args.scales[output] : 1.0f;
      const float bias =
          args.bias != nullptr && exists ? __half2float(static_cast<const __half*>(args.bias)[output]) : 0;
#pragma unroll
      for (int i = 0; i < S::kSums; i += 4) {
        if (S::kSplit && static_cast<uint32_t>((i / 4) >> shift) != rank) continue;
        const int first_row = tile.row + i * 2 + lane_ % 4 * 2;
        float own[2];
#pragma unroll
        for (int row = 0; row < 2; ++row) {
          own[row] = sums_[i + half * 2 + row] * scale + bias;
          if (args.relu && own[row] < 0) own[row] = 0;
        }
        const float other = __shfl_xor_sync(0xffffffffu, odd ? own[0] : own[1], 4);
        const int row = first_row + (odd ? 1 : 0);
        const int64_t first = output - (odd ? 1 : 0);
        if (row >= args.rows || first >= args.out) continue;
        const float2 pair = odd ? float2{other, own[1]} : float2{own[0], other};
        store(args, row * args.y_stride + first, pair, in_pairs, first + 1 < args.out);
      }
    }
  }

 private:
  static constexpr int kPieces = S::kSums / 4;
  __device__ __forceinline__ void load(int i, Operands& a) const {
    const int stage = i % S::kStages;
    await(stages_.full(stage), i / S::kStages % 2);
    const uint32_t from = stages_.weights(stage) + warp_ * 2 * static_cast<uint32_t>(kUnitBytes) + lane_ * 16;
    uint32_t upper[4], lower[4];
    read_words(from, upper);
    read_words(from + static_cast<uint32_t>(kUnitBytes), lower);
    convert<kFormat>(upper, lower, a);
  }

  __device__ __forceinline__ void start(int i, const Operands& a, float* sums, bool fresh) const {
    constexpr int kInRow = S::kRowBytes / 32;  // steps of a box
    const uint32_t x = stages_.x(i % S::kStages);
    begin_multiplying();
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const uint32_t box = x + step / kInRow * S::kBoxBytes + step % kInRow * 32;
#pragma unroll
      for (int column = 0; column < S::kTileRows; column += S::kColumns) {
        multiply_group<S::kColumns>(sums + column / 2, a[step], swizzled_rows(box + column * S::kRowBytes),
                                    step > 0 || !fresh);
      }
    }
    end_batch();
  }

  __device__ __forceinline__ void multiply_unit(float* sums, bool fresh) {
    Operands a;
    load(done_, a);
    start(done_, a, sums, fresh);
    await_batches<0>();
    release(done_++);
  }

  // Meanwhile makes the operands of the next unit, if there is one.
  __device__ __forceinline__ void multiply_and_load(const Operands& a, Operands& next, bool fresh, bool more) {
    start(done_, a, sums_, fresh);
    if (more) load(done_ + 1, next);
    await_batches<0>();
    release(done_++);
  }

  // Sums of a group of inputs are scaled before they are added.
  __device__ __forceinline__ void multiply_group_of_inputs(bool fresh) {
    float part[S::kSums];
    Operands a;
    load(done_, a);
    const uint32_t scales = stages_.scales(done_ % S::kStages) + (warp_ * 16 + lane_ / 4) * 4;
    const float upper = read_float(scales), lower = read_float(scales + 32);
    start(done_, a, part, true);
    await_batches<0>();
    release(done_++);
#pragma unroll
    for (int j = 0; j < S::kSums; ++j) {
      const float scaled = part[j] * (j % 4 < 2 ? upper : lower);
      sums_[j] = fresh ? scaled : sums_[j] + scaled;
    }
  }

  __device__ __forceinline__ void release(int i) const {
    __syncwarp();  // all lanes have read their codes
    if (lane_ == 0) arrive(stages_.empty(i % S::kStages));
  }

  // This thread's part.
  __device__ __forceinline__ static float4* part_of(const WgmmaScratch& scratch, unsigned block) {
    return reinterpret_cast<float4*>(scratch.parts + static_cast<int64_t>(block) * S::kTileCells) + threadIdx.x;
  }

  // Waits until all multiplying threads have called this.
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

  const Stages<S>& stages_;
  int warp_ = static_cast<int>(threadIdx.x / 32);
  int lane_ = static_cast<int>(threadIdx.x % 32);
  int done_ = 0;  // units
  float sums_[S::kSums];
};

// The tiles of a span, one after another.
template <class S>
__device__ __forceinline__ void multiply_span(const QuantisedLinearArgs& args, const WgmmaScratch& scratch,
                                              const Span<S>& span, const Stages<S>& stages) {
  Group<S> group(stages);
  if constexpr (S::kSplit) {
    const uint32_t rank = rank_in_cluster();
    group.multiply(static_cast<int>(span.end - span.begin));
    wait_for_previous();
    if (span.parts > 1) group.exchange(rank, span.parts);
    group.finish(args, Tile<S>(args, span, span.begin / span.units), rank, span.parts);
  } else {
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
      group.finish(args, Tile<S>(args, span, index), 0, 1);
    }
  }
}

template <class S>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks)
    wgmma_kernel(const __grid_constant__ CUtensorMap map, const __grid_constant__ QuantisedLinearArgs args,
                 const __grid_constant__ WgmmaScratch scratch, int parts) {
  extern __shared__ char shared[];
  allow_next();
  const Stages<S> stages(static_cast<uint32_t>(__cvta_generic_to_shared(shared)));
  const Span<S> span(args, static_cast<int>(units_of(S::kFormat, args.in)), parts);
  if (threadIdx.x == 0) {
    for (int i = 0; i < S::kStages; ++i) {
      init_barrier(stages.full(i), 1);
      init_barrier(stages.empty(i), 4 * S::kBands);
    }
    fence_barriers();
  }
  __syncthreads();
  // Each role stays in one branch until it ends, so that each can have its own number of registers.
  if (threadIdx.x >= S::kMultiplying) {
    if constexpr (S::kLarge) give_registers<S::kCopyRegisters>();
    if (threadIdx.x < S::kMultiplying + 32) copy_all(args, map, span, stages);
  } else {
    if constexpr (S::kLarge) take_registers<S::kMultiplyRegisters>();
    multiply_span(args, scratch, span, stages);
  }
}

template <class S>
cudaError_t launch(const QuantisedLinearArgs& args, const WgmmaWay& way, const WgmmaScratch& scratch,
                   const DeviceLimits& device, cudaStream_t stream) {
  constexpr auto kKernel = wgmma_kernel<S>;
  cudaError_t error = cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kBytes);
  if (error != cudaSuccess) return error;
  CUtensorMap map;
  if (!make_half_map(args.x, {args.rows, args.in}, args.rows > 1 ? args.x_stride : args.in, S::kTileRows, map)) {
    return cudaErrorInvalidValue;
  }
  const int64_t row_tiles = (args.rows + S::kTileRows - 1) / S::kTileRows;
  const int64_t tiles = (bands_of(args.out) + S::kBands - 1) / S::kBands * row_tiles;
  LaunchShape shape{dim3(1), dim3(S::kThreads), S::kBytes};
  if constexpr (S::kSplit) {
    shape.grid = dim3(static_cast<unsigned>(tiles * way.split));
    shape.cluster = static_cast<unsigned>(way.split);
  } else {
    static const int resident = [] {  // all GPUs of a process are of the same model
      int blocks = 0;
      return cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kKernel, S::kThreads, S::kBytes) == cudaSuccess
                 ? blocks
                 : 0;
    }();
    if (resident == 0) return cudaErrorInvalidValue;
    const int64_t spans_max = std::max(tiles, tiles * units_of(S::kFormat, args.in) / kSpanUnitsMin);
    shape.grid = dim3(
        static_cast<unsigned>(std::min<int64_t>(std::min(resident, S::kBlocks) * device.multiprocessors, spans_max)));
  }
  return launch_dependent<kKernel>(shape, stream, map, args, scratch, std::max(way.split, 1));
}

template <int kValue>
using Constant = std::integral_constant<int, kValue>;

// Calls make() with a shape, or returns `none` if there is no such tile. int4 keeps its sums twice, so fewer of them
// fit into the registers.
template <WeightFormat kFormat, class Make, class None>
auto with_tile(int64_t rows, const WgmmaWay& way, const Make& make, const None& none) {
  constexpr bool kTwice = kFormat == WeightFormat::kInt4;
  if (way.split > 0) {
    if (rows > kSplitRowsMax) return none;
    if (rows > 32) return way.outputs == 128 ? make(WgmmaShape<kFormat, 64, 2, true>()) : none;
    if (way.outputs == 192) return make(WgmmaShape<kFormat, 32, 3, true>());
    return way.outputs == 128 ? make(WgmmaShape<kFormat, 32, 2, true>()) : none;
  }
  if (way.outputs != 128) return none;
  if (rows <= 32) return make(WgmmaShape<kFormat, 32, 2, false>());
  if (rows <= 64) return make(WgmmaShape<kFormat, 64, 2, false>());
  if constexpr (!kTwice) {
    if (rows > 128) return make(WgmmaShape<kFormat, 256, 2, false>());
  }
  return make(WgmmaShape<kFormat, 128, 2, false>());
}

template <class Make, class None>
auto with_shape(const QuantisedLinearArgs& args, const WgmmaWay& way, const Make& make, const None& none) {
  switch (args.format) {
    case WeightFormat::kInt8:
      return with_tile<WeightFormat::kInt8>(args.rows, way, make, none);
    case WeightFormat::kFp8:
      return with_tile<WeightFormat::kFp8>(args.rows, way, make, none);
    case WeightFormat::kInt4:
      return with_tile<WeightFormat::kInt4>(args.rows, way, make, none);
    default:
      return none;
  }
}

// Whether each block of a cluster has inputs and rows of its own.
bool can_split(const QuantisedLinearArgs& args, int split) {
  return split == 0 || ((split == 1 || split == 2 || split == 4) && units_of(args.format, args.in) >= split);
}

}  // namespace

bool can_wgmma_linear(const QuantisedLinearArgs& args, const WgmmaWay& way, const DeviceLimits& device) {
  if (device.compute_capability != 90 || args.element != Element::kF16) return false;
  if (args.format == WeightFormat::kPlain || args.in == 0 || args.in > (1 << 28) || args.in % 8 != 0) return false;
  if (args.rows > 1 && args.x_stride % 8 != 0) return false;
  if (!aligned_to_packs({args.x, args.values, args.scales}) || args.rows > (1 << 28)) return false;
  const int bytes = with_shape(
      args, way, [](auto shape) { return decltype(shape)::kBytes; }, 0);
  return bytes > 0 && bytes <= device.shared_bytes_max && can_split(args, way.split) && encode_tiled() != nullptr;
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
  return with_shape(
      args, way, [&](auto shape) { return launch<decltype(shape)>(args, way, scratch, device, stream); },
      cudaErrorInvalidValue);
}

}  // namespace optserve::kernels

// Decoding: one query per sequence against its whole context. Every cell is read once, so speed depends on the number
// of bytes in flight: a warp takes whole pages, holds one page of keys and one of values in registers, and loads the
// next page of each as soon as the current one has been used.
#include <algorithm>

#include "kernels/attention/generic.cuh"
#include "kernels/attention/page.cuh"
#include "kernels/dependent_launch.cuh"

namespace optserve::kernels {
namespace {

// A shorter part takes less time than merging the parts.
constexpr int kSplitTokensMin = 128;
// Warps per block: the maximum, or the minimum when there are many (sequence, head) items. There are then enough
// blocks, and a short context leaves fewer warps without a page.
constexpr int kWarpsMax = 8, kWarpsMin = 4;
constexpr int64_t kItemsOfFewWarps = 1024;
// How many blocks of kWarpsMax warps share a multiprocessor: as many as their registers allow, since warps wait most of
// the time.
constexpr int blocks_at_a_time(int head_dim, bool int8) { return head_dim == 64 || int8 ? 3 : 2; }
constexpr int kGenericWarps = 4;
// The scratch: one counter of finished parts for each sequence and head, then parts of head_dim + 2 numbers. More parts
// than these would fill any GPU without splits.
constexpr int64_t kPartsMax = 8192;
constexpr size_t kCounterBytes = kPartsMax / 2 * sizeof(int);

struct DecodeScratch {
  int* counters = nullptr;
  float* parts = nullptr;
};

struct DecodeShape {
  dim3 grid;  // heads, sequences, parts
  int warps = kWarpsMax;
  DecodeScratch scratch;
};

// This block's pages are [first, end). Only parts [0, used) have pages.
struct Split {
  int used, first, end;
};

__device__ __forceinline__ Split split_context(int context, int part, int parts) {
  const int pages = (context + kBlockTokens - 1) / kBlockTokens;
  const int used = min(parts, max(1, context / kSplitTokensMin));
  if (part >= used) return {used, 0, 0};
  if (used == 1) return {1, 0, pages};
  return {used, pages * part / used, pages * (part + 1) / used};
}

// A warp's walk over pages first, first + step, ... < end.
template <typename T, typename C, int kDim>
struct Walk {
  using P = Page<C, kDim>;
  using Row = NewRow<T, C, kDim>;
  using Cells = NewCells<T, C, kDim>;
  HeadCells<C> cells;
  const T* row;       // q of this row and head
  int64_t row_width;  // from q to k, and from k to v
  int first, step, end, context;

  __device__ __forceinline__ int pages() const { return first < end ? (end - first + step - 1) / step : 0; }
  // The KV blocks of the walk's pages from the i-th on, one per lane.
  __device__ __forceinline__ int block(int i, int lane) const {
    const int page = first + (i + lane) * step;
    return page < end ? load_now(cells.table + page) : 0;
  }
  // The token of the walk's i-th page that this step adds; kBlockTokens or more if it adds none there.
  __device__ __forceinline__ int new_token(int i) const { return context - 1 - (first + i * step) * kBlockTokens; }

  __device__ __forceinline__ void load_keys(P& page, int block, int i, int lane) const {
    load(page, cells.keys, cells.key_scales, block, i, lane);
  }
  __device__ __forceinline__ void load_values(P& page, int block, int i, int lane) const {
    load(page, cells.values, cells.value_scales, block, i, lane);
  }

  // Keys and values of the first page, without the cell that this step adds. Returns the blocks of the first pages, as
  // block() does.
  __device__ __forceinline__ int begin(P& keys, P& values, int lane) const {
    if (first >= end) return 0;
    const int blocks = block(0, lane), first_block = __shfl_sync(kAllLanes, blocks, 0);
    load_keys(keys, first_block, 0, lane);
    load_values(values, first_block, 0, lane);
    return blocks;
  }

  __device__ __forceinline__ void run(WarpSoftmax<T, C, kDim>& softmax, P& keys, P& values, int blocks) const {
    const int lane = threadIdx.x % kWarpLanes, count = pages();
    if (count == 0) return;
    Row query;
    query.load(row, lane);
    Cells new_key, new_value;
    if (new_token(count - 1) < kBlockTokens) load_new(new_key, new_value, lane);
    softmax.begin(query, lane);
    for (int i = 0; i < count; ++i) {
      const int added = new_token(i), next = i + 1;
      if (added < kBlockTokens) new_key.put_into(keys, added, lane);
      float score = softmax.score(keys, lane);
      if (lane / 2 > added) score = -INFINITY;
      if (next % kWarpLanes == 0) blocks = block(next, lane);
      const int next_block = __shfl_sync(kAllLanes, blocks, next % kWarpLanes);
      if (next < count) load_keys(keys, next_block, next, lane);
      if (added < kBlockTokens) new_value.put_into(values, added, lane);
      softmax.add(values, softmax.weigh(score), lane);
      if (next < count) load_values(values, next_block, next, lane);
    }
  }

 private:
  __device__ __forceinline__ void load_new(Cells& key, Cells& value, int lane) const {
    Row new_key, new_value;
    new_key.load(row + row_width, lane);
    new_value.load(row + 2 * row_width, lane);
    key.make(new_key);
    value.make(new_value);
  }

  __device__ __forceinline__ void load(P& page, const C* block_0, const float* scales_0, int block, int i,
                                       int lane) const {
    const int known = new_token(i);
    const float* scales = kIsInt8<C> ? scales_0 + cells.scale_offset(block) : nullptr;
    if (known >= kBlockTokens) {
      page.load(block_0 + cells.offset(block), scales, lane);
    } else {
      page.load_some(block_0 + cells.offset(block), scales, known, lane);
    }
  }
};

// The new cells of K and V on their way into the cache: each of the lower 16 lanes has a vector of K, each of the
// others one of V.
template <typename T, typename C, int kDim>
struct NewCell {
  static constexpr int kRow = Page<C, kDim>::kRow, kHalf = kWarpLanes / 2;
  uint4 raw;
  int block;

  __device__ __forceinline__ void load(const Walk<T, C, kDim>& walk, int lane) {
    const int half = lane / kHalf, column = lane % kHalf;
    block = load_now(walk.cells.table + (walk.context - 1) / kBlockTokens);
    raw = make_uint4(0, 0, 0, 0);
    const T* row = walk.row + (1 + half) * walk.row_width;
    if (column < kRow) raw = load_streaming(reinterpret_cast<const uint4*>(row) + column);
  }

  __device__ __forceinline__ void store(const Walk<T, C, kDim>& walk, int lane) const {
    const int half = lane / kHalf, column = lane % kHalf, token = (walk.context - 1) % kBlockTokens;
    C* cell = (half == 0 ? walk.cells.keys : walk.cells.values) + walk.cells.offset(block) + token * kDim;
    auto* to = reinterpret_cast<typename Page<C, kDim>::Vector*>(cell) + column;
    if constexpr (!kIsInt8<C>) {
      if (column < kRow) *to = raw;
    } else {
      float elements[kCellElements];
      uint32_t largest = 0;
      unpack<T>(raw, elements);
#pragma unroll
      for (int e = 0; e < kCellElements; ++e) largest = larger_magnitude(largest, elements[e]);
#pragma unroll
      for (int step = 1; step < kHalf; step *= 2) largest = max(largest, __shfl_xor_sync(kAllLanes, largest, step));
      const CellScale how(largest);
      if (column < kRow) *to = pack_cells(how, elements);
      float* scales = half == 0 ? walk.cells.key_scales : walk.cells.value_scales;
      if (column == 0) scales[walk.cells.scale_offset(block) + token] = how.scale;
    }
  }
};

// Stores this block's part of dimension threadIdx.x. The last block of a sequence and head to finish joins all parts.
template <typename T, int kDim>
__device__ __forceinline__ void join_splits(const Part& part, int used, const DecodeScratch& scratch, T* out) {
  __shared__ bool is_last;
  const int64_t item = static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x;
  const int dim = threadIdx.x;
  float* parts = scratch.parts + item * gridDim.z * (kDim + 2);
  float* mine = parts + blockIdx.z * (kDim + 2);
  if (dim < kDim) mine[dim] = part.sum;
  if (dim == 0) {
    mine[kDim] = part.largest;
    mine[kDim + 1] = part.total;
  }
  __syncthreads();
  if (dim == 0) {
    __threadfence();
    is_last = atomicAdd(scratch.counters + item, 1) == used - 1;
    __threadfence();
  }
  __syncthreads();
  if (!is_last) return;
  if (dim == 0) scratch.counters[item] = 0;
  if (dim >= kDim) return;
  Part whole;
#pragma unroll 4
  for (int i = 0; i < used; ++i) {
    const float* from = parts + i * (kDim + 2);
    whole = join(whole, {__ldcg(from + kDim), __ldcg(from + kDim + 1), __ldcg(from + dim)});
  }
  *out = from_float<T>(__fdividef(whole.sum, whole.total));
}

// One block for each (head, sequence, part). What the previous kernel does not write is loaded before that kernel has
// ended.
template <typename T, typename C, int kDim, int kWarps>
__global__ void __launch_bounds__(kWarps* kWarpLanes, blocks_at_a_time(kDim, kIsInt8<C>) * kWarpsMax / kWarps)
    decode_fast(AttentionArgs args, DecodeScratch scratch) {
  __shared__ float sums[kWarps][kDim];
  __shared__ float largest[kWarps], totals[kWarps];
  allow_next();
  if (!args.is_cache_settled) wait_for_previous();
  const int head = blockIdx.x, thread = threadIdx.x, warp = thread / kWarpLanes, lane = thread % kWarpLanes;
  const int64_t sequence = blockIdx.y, width = static_cast<int64_t>(args.heads) * kDim;
  const int context = load_now(args.context + sequence);
  const HeadCells<C> cells = head_cells<C>(args, sequence, head);
  const T* row = static_cast<const T*>(args.qkv) + sequence * 3 * width + head * kDim;
  const Split split = split_context(context, blockIdx.z, gridDim.z);
  const Walk<T, C, kDim> walk{cells, row, width, split.first + warp, kWarps, split.end, context};
  Page<C, kDim> keys, values;
  const int blocks = walk.begin(keys, values, lane);
  wait_for_previous();

  T* out = static_cast<T*>(args.out) + sequence * width + head * kDim + thread;
  if (context == 0) {
    if (blockIdx.z == 0 && thread < kDim) *out = from_float<T>(0);
    return;
  }
  if (blockIdx.z >= split.used) return;
  WarpSoftmax<T, C, kDim> softmax;
  walk.run(softmax, keys, values, blocks);
  // The last warp has the fewest pages. Nobody reads the new cell: it is taken from qkv.
  const bool stores = blockIdx.z == split.used - 1 && warp == kWarps - 1;
  NewCell<T, C, kDim> cell;
  if (stores) cell.load(walk, lane);
  if (walk.first < walk.end) softmax.finish(sums[warp], lane);
  if (lane == 0) {
    largest[warp] = softmax.largest;
    totals[warp] = softmax.total;
  }
  __syncthreads();
  if (stores) cell.store(walk, lane);
  Part part;
  if (thread < kDim) {
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      if (split.first + w < split.end) part = join(part, {largest[w], totals[w], sums[w][thread]});
    }
  }
  if (split.used == 1) {
    if (thread < kDim) *out = from_float<T>(__fdividef(part.sum, part.total));
  } else {
    join_splits<T, kDim>(part, split.used, scratch, out);
  }
}

// One block for each (head, sequence), with its whole context.
template <typename T, typename C>
__global__ void __launch_bounds__(kGenericWarps* kWarpLanes) decode_generic(AttentionArgs args) {
  __shared__ float sums[kGenericWarps][kHeadDimMax];
  __shared__ float largest[kGenericWarps], totals[kGenericWarps];
  allow_next();
  wait_for_previous();
  const int head = blockIdx.x, thread = threadIdx.x, warp = thread / kWarpLanes, lane = thread % kWarpLanes;
  const int head_dim = args.head_dim;
  const int64_t sequence = blockIdx.y, width = static_cast<int64_t>(args.heads) * head_dim;
  const int context = args.context[sequence];
  T* out = static_cast<T*>(args.out) + sequence * width + head * head_dim;
  if (context == 0) {
    for (int dim = thread; dim < head_dim; dim += blockDim.x) out[dim] = from_float<T>(0);
    return;
  }
  const T* row = static_cast<const T*>(args.qkv) + sequence * 3 * width + head * head_dim;
  const HeadCells<C> cells = head_cells<C>(args, sequence, head);
  const int last = context - 1, token = last % kBlockTokens, block = cells.table[last / kBlockTokens];
  const int64_t cell = cells.offset(block) + token * head_dim;
  if constexpr (kIsInt8<C>) {
    const int64_t scale = cells.scale_offset(block) + token;
    if (warp == 0) store_cell<1>(row + width, head_dim, cells.keys + cell, cells.key_scales + scale);
    if (warp == 1) store_cell<1>(row + 2 * width, head_dim, cells.values + cell, cells.value_scales + scale);
  } else {
    for (int dim = thread; dim < head_dim; dim += blockDim.x) {
      cells.keys[cell + dim] = row[width + dim];
      cells.values[cell + dim] = row[2 * width + dim];
    }
  }
  __syncthreads();

  LaneRow lanes;
  begin_row(lanes, row, head_dim, lane);
  attend_cache(lanes, cells, warp, kGenericWarps, context, head_dim);
#pragma unroll
  for (int i = 0; i < LaneRow::kSlices; ++i) sums[warp][i * kWarpLanes + lane] = lanes.sum[i];
  if (lane == 0) {
    largest[warp] = lanes.largest;
    totals[warp] = lanes.total;
  }
  __syncthreads();
  for (int dim = thread; dim < head_dim; dim += blockDim.x) {
    Part part;
    for (int w = 0; w < kGenericWarps && w * kBlockTokens < context; ++w) {
      part = join(part, {largest[w], totals[w], sums[w][dim]});
    }
    out[dim] = from_float<T>(part.sum / part.total);
  }
}

template <typename T, typename C, int kDim>
cudaError_t launch_fast(const AttentionArgs& args, const DecodeShape& shape, cudaStream_t stream) {
  if (shape.warps == kWarpsMax) {
    return launch_dependent<decode_fast<T, C, kDim, kWarpsMax>>({shape.grid, kWarpsMax * kWarpLanes}, stream, args,
                                                                shape.scratch);
  }
  return launch_dependent<decode_fast<T, C, kDim, kWarpsMin>>({shape.grid, kWarpsMin * kWarpLanes}, stream, args,
                                                              shape.scratch);
}

template <typename T, typename C>
cudaError_t launch_decode(const AttentionArgs& args, const DecodeShape& shape, cudaStream_t stream) {
  if constexpr (!std::is_same_v<T, float>) {
    if (has_fast_path(args)) {
      if (args.head_dim == 64) return launch_fast<T, C, 64>(args, shape, stream);
      if (args.head_dim == 80) return launch_fast<T, C, 80>(args, shape, stream);
      return launch_fast<T, C, 128>(args, shape, stream);
    }
  }
  const LaunchShape generic{{shape.grid.x, shape.grid.y}, kGenericWarps * kWarpLanes};
  return launch_dependent<decode_generic<T, C>>(generic, stream, args);
}

}  // namespace

size_t decode_scratch_bytes(int64_t num_sequences_max, int heads, int head_dim) {
  const int64_t parts = std::min(num_sequences_max * heads * kSplitsMax, kPartsMax);
  return kCounterBytes + static_cast<size_t>(parts * (head_dim + 2)) * sizeof(float);
}

int decode_splits(int64_t num_sequences, int heads, int head_dim, int multiprocessors) {
  const int64_t items = std::max<int64_t>(num_sequences * heads, 1);
  // One block with a whole context keeps a multiprocessor busy: splitting pays only if some would otherwise be idle.
  if (10 * items >= 9 * int64_t{multiprocessors}) return 1;
  const int64_t places = int64_t{blocks_at_a_time(head_dim, false)} * multiprocessors;
  return static_cast<int>(std::clamp<int64_t>(places / items, 1, kSplitsMax));
}

cudaError_t decode_attention(const AttentionArgs& args, int64_t num_sequences, int splits, void* scratch,
                             cudaStream_t stream) {
  if (num_sequences == 0) return cudaGetLastError();
  const int64_t items = num_sequences * args.heads;
  const int64_t parts = scratch == nullptr ? 1 : std::min({int64_t{splits}, int64_t{kSplitsMax}, kPartsMax / items});
  DecodeShape shape;
  shape.grid = dim3(static_cast<unsigned>(args.heads), static_cast<unsigned>(num_sequences),
                    static_cast<unsigned>(std::max<int64_t>(parts, 1)));
  shape.warps = items < kItemsOfFewWarps ? kWarpsMax : kWarpsMin;
  if (parts > 1) {
    shape.scratch.counters = static_cast<int*>(scratch);
    shape.scratch.parts = reinterpret_cast<float*>(static_cast<std::byte*>(scratch) + kCounterBytes);
  }
  return with_element(args.element, [&](auto zero) {
    using T = decltype(zero);
    return with_cells<T>(args, [&](auto cell) { return launch_decode<T, decltype(cell)>(args, shape, stream); });
  });
}

}  // namespace optserve::kernels

// Decoding rows: one query per sequence against its whole context. Every cell is read once, so what counts is bytes in
// flight: a warp takes whole pages (the 16 cells of a block and head, which are contiguous), holds one page of keys and
// one of values in registers, and loads the next page of each as soon as the present one is used.
#include <algorithm>

#include "kernels/attention_generic.cuh"
#include "kernels/attention_ptx.cuh"
#include "kernels/attention_types.cuh"
#include "kernels/dependent_launch.cuh"

namespace optserve::kernels {
namespace {

// Below this a part is done sooner than the parts are merged.
constexpr int kSplitTokensMin = 128;
constexpr int kWarps = 8;
// Blocks that share a multiprocessor: as many as their registers allow, since a warp waits most of its time.
constexpr int blocks_at_a_time(int head_dim) { return head_dim == 64 ? 3 : 2; }
constexpr int kGenericWarps = 4;
constexpr int kAppendThreads = 256;
// The scratch: one counter of finished parts for each sequence and head, then parts of head_dim + 2 numbers. More parts
// than these would fill any GPU without splits.
constexpr int64_t kPartsMax = 8192;
constexpr size_t kCounterBytes = kPartsMax / 2 * sizeof(int);

struct DecodeScratch {
  int* counters;
  float* parts;
};

// Pages [first, end) are this block's; parts [0, used) have pages.
struct Split {
  int used, first, end;
};

__device__ __forceinline__ Split split_context(int context, int part, int parts) {
  const int pages = (context + kBlockTokens - 1) / kBlockTokens;
  const int used = min(parts, max(1, context / kSplitTokensMin));
  if (used == 1) return {1, 0, pages};
  return {used, pages * part / used, pages * (part + 1) / used};
}

// A page as a warp holds it: 16 bytes a lane and load. Lanes in groups of kGroup load the first kGroup vectors of a
// row; what is left of a row (two vectors, head_dim 80) is loaded by pairs of lanes. In both, lanes 2t and 2t + 1
// are among those that load token t.
template <int kDim>
struct Page {
  static constexpr int kRow = kDim * 2 / static_cast<int>(sizeof(uint4));
  static constexpr int kGroup = kRow >= 16 ? 16 : 8;
  static constexpr int kMain = kBlockTokens * kGroup / kWarpLanes;  // loads of the first form
  static constexpr int kSlices = kRow > kGroup ? 2 : 1;
  static constexpr int kLoads = kMain + kSlices - 1;
  static_assert(kRow == kGroup || kRow == kGroup + 2);

  uint4 vectors[kLoads];

  static __device__ __forceinline__ int token(int load, int lane) {
    return load < kMain ? lane / kGroup * kMain + load : lane / 2;
  }
  static __device__ __forceinline__ int column(int slice, int lane) {
    return slice == 0 ? lane % kGroup : kGroup + lane % 2;
  }
  static constexpr __device__ __forceinline__ int slice(int load) { return load < kMain ? 0 : 1; }

  __device__ __forceinline__ void load(const uint4* cells, int lane) {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      vectors[i] = load_streaming(cells + token(i, lane) * kRow + column(slice(i), lane));
    }
  }

  // The page in which the context ends, at token `last`: that one is `row`, and zeros follow it.
  __device__ __forceinline__ void load_end(const uint4* cells, const uint4* row, int last, int lane) {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const uint4* cell = cells + token(i, lane) * kRow + column(slice(i), lane);
      if (token(i, lane) == last) cell = row + column(slice(i), lane);
      vectors[i] = make_uint4(0, 0, 0, 0);
      if (token(i, lane) <= last) vectors[i] = load_streaming(cell);
    }
  }
};

// The softmax of a warp. A lane holds the dimensions of its columns, summed over its tokens.
template <typename T, int kDim>
struct WarpSoftmax {
  using P = Page<kDim>;
  float query[P::kSlices][8];  // times log2(e) / sqrt(head_dim)
  float sum[P::kSlices][8];
  float largest = -INFINITY;
  float total = 0;  // over tokens lane / 2

  __device__ __forceinline__ void begin(const uint4* query_row, int lane) {
    const float scale = kLog2E / sqrtf(static_cast<float>(kDim));
#pragma unroll
    for (int s = 0; s < P::kSlices; ++s) {
      unpack<T>(load_streaming(query_row + P::column(s, lane)), query[s]);
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        query[s][e] *= scale;
        sum[s][e] = 0;
      }
    }
  }

  __device__ __forceinline__ float product(const P& keys, int load) const {
    float key[8], result = 0;
    unpack<T>(keys.vectors[load], key);
#pragma unroll
    for (int e = 0; e < 8; ++e) result += query[P::slice(load)][e] * key[e];
    return result;
  }

  // The score of token lane / 2. A group folds its kMain sums over its lanes, half of the sums moving in each step.
  __device__ __forceinline__ float score(const P& keys, int lane) const {
    float sums[P::kMain];
#pragma unroll
    for (int i = 0; i < P::kMain; ++i) sums[i] = product(keys, i);
#pragma unroll
    for (int half = P::kMain / 2; half > 0; half /= 2) {
      const bool upper = (lane & (2 * half)) != 0;
#pragma unroll
      for (int i = 0; i < half; ++i) {
        const float sent = upper ? sums[i] : sums[i + half];
        sums[i] = (upper ? sums[i + half] : sums[i]) + __shfl_xor_sync(kAllLanes, sent, 2 * half);
      }
    }
    if constexpr (P::kSlices == 2) sums[0] += product(keys, P::kMain);
    return sums[0] + __shfl_xor_sync(kAllLanes, sums[0], 1);
  }

  // The weight of token lane / 2 from its score.
  __device__ __forceinline__ float weigh(float score) {
    float now = fmaxf(largest, score);
#pragma unroll
    for (int step = 2; step < kWarpLanes; step *= 2) now = fmaxf(now, __shfl_xor_sync(kAllLanes, now, step));
    const float scale = exp2_fast(largest - now), weight = exp2_fast(score - now);
    largest = now;
    total = total * scale + weight;
#pragma unroll
    for (int s = 0; s < P::kSlices; ++s) {
#pragma unroll
      for (int e = 0; e < 8; ++e) sum[s][e] *= scale;
    }
    return weight;
  }

  __device__ __forceinline__ void add(const P& values, float weight, int lane) {
#pragma unroll
    for (int i = 0; i < P::kLoads; ++i) {
      const float w = i < P::kMain ? __shfl_sync(kAllLanes, weight, 2 * P::token(i, lane)) : weight;
      float value[8];
      unpack<T>(values.vectors[i], value);
#pragma unroll
      for (int e = 0; e < 8; ++e) sum[P::slice(i)][e] += w * value[e];
    }
  }

  // Sums over the lanes that hold the same dimensions.
  __device__ __forceinline__ void finish(float* sums, int lane) {
#pragma unroll
    for (int step = 2; step < kWarpLanes; step *= 2) total += __shfl_xor_sync(kAllLanes, total, step);
#pragma unroll
    for (int s = 0; s < P::kSlices; ++s) {
      const int lanes = s == 0 ? P::kGroup : 2;
#pragma unroll
      for (int step = lanes; step < kWarpLanes; step *= 2) {
#pragma unroll
        for (int e = 0; e < 8; ++e) sum[s][e] += __shfl_xor_sync(kAllLanes, sum[s][e], step);
      }
      if (lane >= lanes) continue;
#pragma unroll
      for (int e = 0; e < 8; ++e) sums[P::column(s, lane) * 8 + e] = sum[s][e];
    }
  }
};

// A warp's walk over pages first, first + step, ... < end.
template <typename T, int kDim>
struct Walk {
  HeadCells<T> cells;
  const uint4* row;   // q of this row and head
  int64_t row_width;  // from q to k, and from k to v, in vectors
  int first, step, end, context;

  __device__ __forceinline__ int block(int i, int lane) const {
    const int page = first + (i + lane) * step;
    return page < end ? cells.table[page] : 0;
  }

  __device__ __forceinline__ void load(Page<kDim>& page, const T* block_0, int block, int i, int part) const {
    const int lane = threadIdx.x % kWarpLanes, begin = (first + i * step) * kBlockTokens;
    const auto* from = reinterpret_cast<const uint4*>(block_0 + cells.offset(block));
    if (begin + kBlockTokens < context) {
      page.load(from, lane);
    } else {
      page.load_end(from, row + part * row_width, context - 1 - begin, lane);
    }
  }

  __device__ __forceinline__ void run(WarpSoftmax<T, kDim>& softmax) const {
    const int lane = threadIdx.x % kWarpLanes;
    if (first >= end) return;
    const int pages = (end - first + step - 1) / step;
    int blocks = block(0, lane);  // of 32 pages of this warp
    softmax.begin(row, lane);
    Page<kDim> keys, values;
    float score = 0;
    for (int i = -1; i < pages; ++i) {
      const int next = i + 1;
      if (i >= 0) {
        score = softmax.score(keys, lane);
        if ((first + i * step) * kBlockTokens + lane / 2 >= context) score = -INFINITY;
        if (next % kWarpLanes == 0) blocks = block(next, lane);
      }
      const int next_block = __shfl_sync(kAllLanes, blocks, next % kWarpLanes);
      if (next < pages) load(keys, cells.keys, next_block, next, 1);
      if (i >= 0) softmax.add(values, softmax.weigh(score), lane);
      if (next < pages) load(values, cells.values, next_block, next, 2);
    }
  }
};

// A lane's 16 bytes of a row of K (the lower 16 lanes) or V on their way into the cache.
template <typename T, int kDim>
struct NewCell {
  uint4 vector;
  uint4* to = nullptr;

  __device__ __forceinline__ void load(const Walk<T, kDim>& walk, int lane) {
    constexpr int kRow = Page<kDim>::kRow;
    const int last = walk.context - 1, half = lane / 16, column = lane % 16;
    if (column >= kRow) return;
    vector = load_streaming(walk.row + (1 + half) * walk.row_width + column);
    T* block_0 = half == 0 ? walk.cells.keys : walk.cells.values;
    const int64_t block = walk.cells.offset(walk.cells.table[last / kBlockTokens]);
    to = reinterpret_cast<uint4*>(block_0 + block) + last % kBlockTokens * kRow + column;
  }
  __device__ __forceinline__ void store() const {
    if (to != nullptr) *to = vector;
  }
};

// Stores this block's part of dimension threadIdx.x; the last block of a sequence and head joins them all.
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

// A block is one (head, sequence, part).
template <typename T, int kDim>
__global__ void __launch_bounds__(kWarps* kWarpLanes, blocks_at_a_time(kDim))
    decode_fast(AttentionArgs args, DecodeScratch scratch) {
  __shared__ float sums[kWarps][kDim];
  __shared__ float largest[kWarps], totals[kWarps];
  allow_next();
  wait_for_previous();
  const int head = blockIdx.x, thread = threadIdx.x, warp = thread / kWarpLanes, lane = thread % kWarpLanes;
  const int64_t sequence = blockIdx.y, width = static_cast<int64_t>(args.heads) * kDim;
  const int context = load_now(args.context + sequence);
  const HeadCells<T> cells = head_cells<T>(args, sequence, head);
  T* out = static_cast<T*>(args.out) + sequence * width + head * kDim + thread;
  if (context == 0) {
    if (blockIdx.z == 0 && thread < kDim) *out = from_float<T>(0);
    return;
  }
  const Split split = split_context(context, blockIdx.z, gridDim.z);
  if (blockIdx.z >= split.used) return;

  const T* row = static_cast<const T*>(args.qkv) + sequence * 3 * width + head * kDim;
  const Walk<T, kDim> walk{cells,
                           reinterpret_cast<const uint4*>(row),
                           width * 2 / static_cast<int>(sizeof(uint4)),
                           split.first + warp,
                           kWarps,
                           split.end,
                           context};
  WarpSoftmax<T, kDim> softmax;
  walk.run(softmax);
  // The last warp has the fewest pages. Nobody reads the new cell: it is taken from qkv.
  NewCell<T, kDim> cell;
  if (blockIdx.z == split.used - 1 && warp == kWarps - 1) cell.load(walk, lane);
  if (walk.first < walk.end) softmax.finish(sums[warp], lane);
  if (lane == 0) {
    largest[warp] = softmax.largest;
    totals[warp] = softmax.total;
  }
  cell.store();
  __syncthreads();
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

// A block is one (head, sequence) with its whole context.
template <typename T>
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
  const HeadCells<T> cells = head_cells<T>(args, sequence, head);
  const int last = context - 1;
  const int64_t cell = cells.offset(cells.table[last / kBlockTokens]) + last % kBlockTokens * head_dim;
  for (int dim = thread; dim < head_dim; dim += blockDim.x) {
    cells.keys[cell + dim] = row[width + dim];
    cells.values[cell + dim] = row[2 * width + dim];
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

// Rows of K and V as units of `Unit`: `page_row` units make a row of one head.
template <typename Unit>
__global__ void __launch_bounds__(256)
    append_rows(AttentionArgs args, const int32_t* slots, int64_t first_row, int page_row) {
  allow_next();
  wait_for_previous();
  const int64_t row = first_row + blockIdx.x;
  const int slot = slots[row];
  if (slot < 0) return;
  const int64_t block = slot / kBlockTokens;
  const int offset = slot % kBlockTokens, width = args.heads * page_row;
  const Unit* from = static_cast<const Unit*>(args.qkv) + row * 3 * width + width;
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    const int head = i / page_row;
    const int64_t to = ((block * args.heads + head) * kBlockTokens + offset) * page_row + i % page_row;
    static_cast<Unit*>(args.keys)[to] = from[i];
    static_cast<Unit*>(args.values)[to] = from[width + i];
  }
}

template <typename T, int kDim>
cudaError_t launch_fast(const AttentionArgs& args, const dim3& grid, const DecodeScratch& scratch,
                        cudaStream_t stream) {
  return launch_dependent<decode_fast<T, kDim>>({grid, kWarps * kWarpLanes}, stream, args, scratch);
}

template <typename T>
cudaError_t launch_decode(const AttentionArgs& args, const dim3& grid, const DecodeScratch& scratch,
                          cudaStream_t stream) {
  if constexpr (!std::is_same_v<T, float>) {
    if (has_fast_path(args)) {
      if (args.head_dim == 64) return launch_fast<T, 64>(args, grid, scratch, stream);
      if (args.head_dim == 80) return launch_fast<T, 80>(args, grid, scratch, stream);
      return launch_fast<T, 128>(args, grid, scratch, stream);
    }
  }
  return launch_dependent<decode_generic<T>>({{grid.x, grid.y}, kGenericWarps * kWarpLanes}, stream, args);
}

template <typename Unit>
cudaError_t launch_append(const AttentionArgs& args, const int32_t* slots, int64_t first_row, int64_t num_rows,
                          cudaStream_t stream) {
  const int page_row = args.head_dim * (args.element == Element::kF32 ? 4 : 2) / static_cast<int>(sizeof(Unit));
  const LaunchShape shape{static_cast<unsigned>(num_rows), kAppendThreads};
  return launch_dependent<append_rows<Unit>>(shape, stream, args, slots, first_row, page_row);
}

}  // namespace

size_t decode_scratch_bytes(int64_t num_sequences_max, int heads, int head_dim) {
  const int64_t parts = std::min(num_sequences_max * heads * kSplitsMax, kPartsMax);
  return kCounterBytes + static_cast<size_t>(parts * (head_dim + 2)) * sizeof(float);
}

int decode_splits(int64_t num_sequences, int heads, int head_dim, int multiprocessors) {
  const int64_t items = std::max<int64_t>(num_sequences * heads, 1);
  // A whole context a block keeps a multiprocessor busy: parts pay only where some would have nothing to do.
  if (10 * items >= 9 * int64_t{multiprocessors}) return 1;
  const int64_t places = int64_t{blocks_at_a_time(head_dim)} * multiprocessors;
  return static_cast<int>(std::clamp<int64_t>(places / items, 1, kSplitsMax));
}

cudaError_t decode_attention(const AttentionArgs& args, int64_t num_sequences, int splits, void* scratch,
                             cudaStream_t stream) {
  if (num_sequences == 0) return cudaGetLastError();
  const int64_t items = num_sequences * args.heads;
  const int64_t parts = scratch == nullptr ? 1 : std::min({int64_t{splits}, int64_t{kSplitsMax}, kPartsMax / items});
  const dim3 grid(static_cast<unsigned>(args.heads), static_cast<unsigned>(num_sequences),
                  static_cast<unsigned>(std::max<int64_t>(parts, 1)));
  DecodeScratch memory{};
  if (parts > 1) {
    memory = {static_cast<int*>(scratch), reinterpret_cast<float*>(static_cast<std::byte*>(scratch) + kCounterBytes)};
  }
  return with_element(args.element,
                      [&](auto zero) { return launch_decode<decltype(zero)>(args, grid, memory, stream); });
}

cudaError_t append_kv(const AttentionArgs& args, const int32_t* kv_slots, int64_t first_row, int64_t num_rows,
                      cudaStream_t stream) {
  if (num_rows == 0) return cudaGetLastError();
  const int element_bytes = args.element == Element::kF32 ? 4 : 2;
  if (args.head_dim * element_bytes % sizeof(uint4) == 0 && aligned_to_packs({args.qkv, args.keys, args.values})) {
    return launch_append<uint4>(args, kv_slots, first_row, num_rows, stream);
  }
  if (element_bytes == 4) return launch_append<uint32_t>(args, kv_slots, first_row, num_rows, stream);
  return launch_append<uint16_t>(args, kv_slots, first_row, num_rows, stream);
}

}  // namespace optserve::kernels

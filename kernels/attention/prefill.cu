// Attention of prompts: parts of 64 rows of a tile against tiles of 64 keys (FlashAttention-2). Each of 4 warps has 16
// rows of the part, with their queries and results in registers. Keys and values pass through shared memory in two
// stages, so that one tile is copied while the other is multiplied. Int8 cells are copied as they are and become
// elements in one stage.
#include "kernels/attention/generic.cuh"
#include "kernels/attention/tile.cuh"
#include "kernels/dependent_launch.cuh"

namespace optserve::kernels {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarpLanes;
constexpr int kPartRows = 64;  // the rows of a tile that one block takes
constexpr int kParts = kPrefillTileRows / kPartRows;
constexpr int kWarpRows = kPartRows / kWarps;
constexpr int kTileKeys = kWarps * kBlockTokens;  // a warp copies one page of a tile
constexpr int kKeyColumns = kTileKeys / 8;        // of 8 keys in the scores
constexpr int kGenericRows = kWarps;              // rows of a generic block

// The part of a tile that is this block's.
__device__ __forceinline__ Tile part_of_block(const AttentionArgs& args, const int32_t* tiles) {
  const int index = static_cast<int>(gridDim.x - 1 - blockIdx.x);
  return find_tile(args, tiles + 2 * static_cast<int64_t>(index / kParts), index % kParts * kPartRows, kPartRows);
}

// Keys or values of a tile in shared memory, in vectors of 16 bytes. Rows are padded to an odd number of vectors or, if
// they are whole lines of 128 bytes, vector c of row r is at c ^ (r % 8): 8 rows of one column are in different banks
// either way.
template <int kDim>
struct Stage {
  static constexpr int kVector = sizeof(uint4);
  static constexpr int kRow = kDim * 2 / kVector;
  static constexpr bool kSwizzled = kRow % 8 == 0;
  static constexpr int kStride = (kSwizzled || kRow % 2 != 0 ? kRow : kRow + 1) * kVector;
  static constexpr int kBytes = kTileKeys * kStride;

  static __device__ __forceinline__ uint32_t offset(int row, int column) {
    return row * kStride + (kSwizzled ? column ^ (row % 8) : column) * kVector;
  }
  // Turns the address of column 0 or 1 of a row into that of the column `columns` further, an even number, so that no
  // addition carries.
  static __device__ __forceinline__ uint32_t move(uint32_t address, int columns) {
    return kSwizzled ? address ^ (columns * kVector) : address + columns * kVector;
  }
};

// Copies the keys and values of positions [first, first + 64) below `end`, and zeros for the others. The values follow
// two stages of keys.
template <typename T, int kDim>
__device__ __forceinline__ void copy_stage(uint32_t keys, const HeadCells<T>& cells, int first, int end) {
  using S = Stage<kDim>;
  const int lane = threadIdx.x % kWarpLanes, page_key = threadIdx.x / kWarpLanes * kBlockTokens;
  const int tokens = end - first - page_key;  // of this warp's page and those after it
  const int64_t block = cells.offset(tokens > 0 ? cells.table[(first + page_key) / kBlockTokens] : 0);
  const auto* from_keys = reinterpret_cast<const uint4*>(cells.keys + block) + lane;
  const auto* from_values = reinterpret_cast<const uint4*>(cells.values + block) + lane;
  const uint32_t to_first = keys + S::offset(page_key + lane / S::kRow, lane % S::kRow);
#pragma unroll
  for (int i = 0; i < S::kRow * kBlockTokens / kWarpLanes; ++i) {
    const int vector = i * kWarpLanes + lane, token = vector / S::kRow;
    uint32_t to;
    if constexpr (S::kSwizzled) {
      constexpr int kRows = kWarpLanes / S::kRow;  // of one load of the warp
      to = (to_first ^ (i * kRows % 8 * S::kVector)) + i * kRows * S::kStride;
    } else {
      to = keys + S::offset(page_key + token, vector % S::kRow);
    }
    copy_async(to, from_keys + i * kWarpLanes, token < tokens);
    copy_async(to + 2 * S::kBytes, from_values + i * kWarpLanes, token < tokens);
  }
}

// Int8 cells of a tile in shared memory as they are in the cache, keys before values, and their scales. A thread
// converts the vectors that it has copied itself, so that it may then copy the next ones to the same place.
template <int kDim>
struct RawTile {
  static constexpr int kVectorCells = 16;
  static constexpr int kRow = kDim / kVectorCells;   // vectors of a cell
  static constexpr int kVectors = kTileKeys * kRow;  // of keys
  static constexpr int kScales = 2 * kTileKeys;
  uint4 cells[2][kVectors];
  float scales[2][kScales];  // two in turn, since they are read by other threads than those that copy them

  // Copies positions [first, first + 64) below `end`, and zeros for the others.
  __device__ __forceinline__ void copy(const HeadCells<int8_t>& head, int first, int end, int turn) {
    const auto* keys = reinterpret_cast<const uint4*>(head.keys);
    const auto* values = reinterpret_cast<const uint4*>(head.values);
    for (int i = threadIdx.x; i < kVectors; i += kThreads) {
      const int position = first + i / kRow;
      const bool valid = position < end;
      const int64_t page = head.offset(valid ? head.table[position / kBlockTokens] : 0) / kVectorCells;
      const int64_t from = page + position % kBlockTokens * kRow + i % kRow;
      copy_async(shared_address(&cells[0][i]), keys + from, valid);
      copy_async(shared_address(&cells[1][i]), values + from, valid);
    }
    static_assert(kScales == kThreads);
    const bool is_key = threadIdx.x < kTileKeys;
    const int position = first + static_cast<int>(threadIdx.x) % kTileKeys;
    const bool valid = position < end;
    const int64_t from = head.scale_offset(valid ? head.table[position / kBlockTokens] : 0) + position % kBlockTokens;
    copy_async(shared_address(&scales[turn][threadIdx.x]), (is_key ? head.key_scales : head.value_scales) + from,
               valid);
  }

  template <typename T>
  __device__ __forceinline__ void widen(unsigned char* keys, int turn) const {
    using S = Stage<kDim>;
    for (int i = threadIdx.x; i < kVectors; i += kThreads) {
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        const int token = i / kRow, column = i % kRow * 2;
        const float scale = scales[turn][part * kTileKeys + token];
        const uint4 raw = cells[part][i];
        const uint2 halves[2] = {{raw.x, raw.y}, {raw.z, raw.w}};
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float elements[kCellElements];
          unpack_int8(halves[half], elements);
#pragma unroll
          for (int e = 0; e < kCellElements; ++e) elements[e] *= scale;
          *reinterpret_cast<uint4*>(keys + part * S::kBytes + S::offset(token, column + half)) = pack<T>(elements);
        }
      }
    }
  }
};

// The rows of a warp. A lane has rows lane / 4 and lane / 4 + 8, and of each the columns that multiply_add() gives it.
template <typename T, int kDim>
struct WarpRows {
  static constexpr int kSteps = kDim / 16;
  uint32_t query[kSteps][4];
  float out[kDim / 8][4];
  float largest[2] = {-INFINITY, -INFINITY};  // of the scores before the scale
  float total[2] = {0, 0};                    // of this lane's columns

  // `row` is the query of the lane's first row; `rows` counts the rows from there.
  __device__ __forceinline__ void begin(const T* row, int64_t stride, int rows) {
    const int column = threadIdx.x % 4 * 2;
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row_of = i % 2 * 8;
        const T* from = row + row_of * stride + k * 16 + i / 2 * 8 + column;
        query[k][i] = row_of < rows ? *reinterpret_cast<const uint32_t*>(from) : 0;
      }
    }
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) out[n][i] = 0;
    }
  }

  __device__ __forceinline__ void multiply_keys(float (&scores)[kKeyColumns][4], uint32_t keys) const {
    const int lane = threadIdx.x % kWarpLanes;
    keys += Stage<kDim>::offset(lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll
    for (int n = 0; n < kKeyColumns; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) scores[n][i] = 0;
    }
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
#pragma unroll
      for (int n = 0; n < kKeyColumns; n += 2) {
        uint32_t b[4];  // (keys n, dimensions of both halves), (keys n + 1, ...)
        load_matrices(b, Stage<kDim>::move(keys, 2 * k) + n * 8 * Stage<kDim>::kStride);
        multiply_add<T>(scores[n], query[k], b[0], b[1]);
        multiply_add<T>(scores[n + 1], query[k], b[2], b[3]);
      }
    }
  }

  // `visible`: how many of the 64 keys the lane's first row sees; its second row sees 8 more.
  static __device__ __forceinline__ void mask(float (&scores)[kKeyColumns][4], int visible) {
    const int column = threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < kKeyColumns; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (n * 8 + column + i % 2 >= visible + i / 2 * 8) scores[n][i] = -INFINITY;
      }
    }
  }

  // Turns scores into weights. A score times `scale` is an exponent of 2.
  __device__ __forceinline__ void weigh(float (&scores)[kKeyColumns][4], float scale) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float now = largest[r];
#pragma unroll
      for (int n = 0; n < kKeyColumns; ++n) now = fmaxf(now, fmaxf(scores[n][2 * r], scores[n][2 * r + 1]));
      now = fmaxf(now, __shfl_xor_sync(kAllLanes, now, 1));
      now = fmaxf(now, __shfl_xor_sync(kAllLanes, now, 2));
      const float rescale = exp2_fast((largest[r] - now) * scale), offset = now * scale;
      largest[r] = now;
      total[r] *= rescale;
#pragma unroll
      for (int n = 0; n < kKeyColumns; ++n) {
#pragma unroll
        for (int i = 2 * r; i < 2 * r + 2; ++i) {
          scores[n][i] = exp2_fast(scores[n][i] * scale - offset);
          total[r] += scores[n][i];
        }
      }
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        out[n][2 * r] *= rescale;
        out[n][2 * r + 1] *= rescale;
      }
    }
  }

  __device__ __forceinline__ void add_values(const float (&weights)[kKeyColumns][4], uint32_t values) {
    const int lane = threadIdx.x % kWarpLanes;
    values += Stage<kDim>::offset(lane % 16, lane / 16);
#pragma unroll
    for (int k = 0; k < kTileKeys / 16; ++k) {
      const float(&low)[4] = weights[2 * k];
      const float(&high)[4] = weights[2 * k + 1];
      const uint32_t a[4] = {pack_pair<T>(low[0], low[1]), pack_pair<T>(low[2], low[3]), pack_pair<T>(high[0], high[1]),
                             pack_pair<T>(high[2], high[3])};
#pragma unroll
      for (int n = 0; n < kDim / 8; n += 2) {
        uint32_t b[4];  // (both halves of the keys, dimensions n), (..., n + 1)
        load_matrices_transposed(b, Stage<kDim>::move(values, n) + k * 16 * Stage<kDim>::kStride);
        multiply_add<T>(out[n], a, b[0], b[1]);
        multiply_add<T>(out[n + 1], a, b[2], b[3]);
      }
    }
  }

  __device__ __forceinline__ void store(T* row, int64_t stride, int rows) {
    const int column = threadIdx.x % 4 * 2;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      total[r] += __shfl_xor_sync(kAllLanes, total[r], 1);
      total[r] += __shfl_xor_sync(kAllLanes, total[r], 2);
      if (r * 8 >= rows) continue;
      const float factor = total[r] == 0 ? 0 : __fdividef(1, total[r]);  // a padding row sees nothing
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        *reinterpret_cast<uint32_t*>(row + r * 8 * stride + n * 8 + column) =
            pack_pair<T>(out[n][2 * r] * factor, out[n][2 * r + 1] * factor);
      }
    }
  }
};

// One block for each (part of a tile, head). The last tiles have the longest contexts, so they begin first.
template <typename T, int kDim>
__global__ void __launch_bounds__(kThreads, 3) prefill_fast(AttentionArgs args, const int32_t* tiles) {
  using S = Stage<kDim>;
  extern __shared__ __align__(256) unsigned char shared[];  // two stages of keys, two of values
  allow_next();
  wait_for_previous();
  const uint32_t stage_0 = shared_address(shared);
  const int head = blockIdx.y, lane_row = threadIdx.x / kWarpLanes * kWarpRows + threadIdx.x % kWarpLanes / 4;
  const Tile tile = part_of_block(args, tiles);
  if (tile.rows <= 0) return;
  const HeadCells<T> cells = head_cells<T>(args, tile.sequence, head);
  const int end = tile.visible + tile.rows - 1;
  const int64_t width = static_cast<int64_t>(args.heads) * kDim, row = int64_t{tile.first_row} + lane_row;
  const float scale = kLog2E / sqrtf(static_cast<float>(kDim));

  copy_stage<T, kDim>(stage_0, cells, 0, end);
  commit_copies();
  WarpRows<T, kDim> rows;
  rows.begin(static_cast<const T*>(args.qkv) + row * 3 * width + head * kDim, 3 * width, tile.rows - lane_row);
  uint32_t stage = stage_0;
  for (int first = 0; first < end; first += kTileKeys) {
    wait_for_copies();
    __syncthreads();  // this stage is complete, and nobody reads the other any more
    const int next = first + kTileKeys;
    const uint32_t next_stage = 2 * stage_0 + S::kBytes - stage;
    if (next < end) {
      copy_stage<T, kDim>(next_stage, cells, next, end);
      commit_copies();
    }
    float scores[kKeyColumns][4];
    rows.multiply_keys(scores, stage);
    if (next > tile.visible) rows.mask(scores, tile.visible + lane_row - first);
    rows.weigh(scores, scale);
    rows.add_values(scores, stage + 2 * S::kBytes);
    stage = next_stage;
  }
  rows.store(static_cast<T*>(args.out) + row * width + head * kDim, width, tile.rows - lane_row);
}

// The same for int8 cells. Shared memory holds one stage of keys and one of values, then a raw tile.
template <typename T, int kDim>
__global__ void __launch_bounds__(kThreads, 3) prefill_int8(AttentionArgs args, const int32_t* tiles) {
  using S = Stage<kDim>;
  extern __shared__ __align__(256) unsigned char shared[];
  allow_next();
  wait_for_previous();
  auto& raw = *reinterpret_cast<RawTile<kDim>*>(shared + 2 * S::kBytes);
  const int head = blockIdx.y, lane_row = threadIdx.x / kWarpLanes * kWarpRows + threadIdx.x % kWarpLanes / 4;
  const Tile tile = part_of_block(args, tiles);
  if (tile.rows <= 0) return;
  const HeadCells<int8_t> cells = head_cells<int8_t>(args, tile.sequence, head);
  const int end = tile.visible + tile.rows - 1;
  const int64_t width = static_cast<int64_t>(args.heads) * kDim, row = int64_t{tile.first_row} + lane_row;
  const float scale = kLog2E / sqrtf(static_cast<float>(kDim));
  const uint32_t stage = shared_address(shared);

  raw.copy(cells, 0, end, 0);
  commit_copies();
  WarpRows<T, kDim> rows;
  rows.begin(static_cast<const T*>(args.qkv) + row * 3 * width + head * kDim, 3 * width, tile.rows - lane_row);
  int turn = 0;
  for (int first = 0; first < end; first += kTileKeys, turn ^= 1) {
    wait_for_copies();
    __syncthreads();  // the raw tile is complete, and nobody reads the stage any more
    raw.template widen<T>(shared, turn);
    const int next = first + kTileKeys;
    if (next < end) {
      raw.copy(cells, next, end, turn ^ 1);
      commit_copies();
    }
    __syncthreads();
    float scores[kKeyColumns][4];
    rows.multiply_keys(scores, stage);
    if (next > tile.visible) rows.mask(scores, tile.visible + lane_row - first);
    rows.weigh(scores, scale);
    rows.add_values(scores, stage + S::kBytes);
  }
  rows.store(static_cast<T*>(args.out) + row * width + head * kDim, width, tile.rows - lane_row);
}

// A block has kGenericRows rows of one (tile, head), one warp for each.
template <typename T, typename C>
__global__ void __launch_bounds__(kThreads, 4) prefill_generic(AttentionArgs args, const int32_t* tiles) {
  allow_next();
  wait_for_previous();
  const int head = blockIdx.y, lane = threadIdx.x % kWarpLanes, head_dim = args.head_dim;
  const Tile tile = find_tile(args, tiles + 2 * static_cast<int64_t>(blockIdx.x), 0, kPrefillTileRows);
  const int tile_row = blockIdx.z * kGenericRows + threadIdx.x / kWarpLanes;
  if (tile_row >= tile.rows) return;
  const int64_t width = static_cast<int64_t>(args.heads) * head_dim, row = int64_t{tile.first_row} + tile_row;
  LaneRow lanes;
  begin_row(lanes, static_cast<const T*>(args.qkv) + row * 3 * width + head * head_dim, head_dim, lane);
  attend_cache(lanes, head_cells<C>(args, tile.sequence, head), 0, 1, tile.visible + tile_row, head_dim);
  T* out = static_cast<T*>(args.out) + row * width + head * head_dim;
#pragma unroll
  for (int i = 0; i < LaneRow::kSlices; ++i) {
    const int dim = i * kWarpLanes + lane;
    if (dim < head_dim) out[dim] = from_float<T>(lanes.total == 0 ? 0 : lanes.sum[i] / lanes.total);
  }
}

template <auto kKernel>
cudaError_t launch_tiles(const AttentionArgs& args, const int32_t* tiles, const LaunchShape& shape,
                         cudaStream_t stream) {
  if (shape.shared_bytes > 48 * 1024) {
    const cudaError_t error = cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                   static_cast<int>(shape.shared_bytes));
    if (error != cudaSuccess) return error;
  }
  return launch_dependent<kKernel>(shape, stream, args, tiles);
}

template <typename T, typename C, int kDim>
cudaError_t launch_fast(const AttentionArgs& args, const int32_t* tiles, const dim3& grid, cudaStream_t stream) {
  if constexpr (kIsInt8<C>) {
    constexpr size_t kBytes = 2 * Stage<kDim>::kBytes + sizeof(RawTile<kDim>);
    return launch_tiles<prefill_int8<T, kDim>>(args, tiles, {grid, kThreads, kBytes}, stream);
  } else {
    return launch_tiles<prefill_fast<T, kDim>>(args, tiles, {grid, kThreads, 4 * Stage<kDim>::kBytes}, stream);
  }
}

template <typename T, typename C>
cudaError_t launch_prefill(const AttentionArgs& args, const int32_t* tiles, dim3 grid, cudaStream_t stream) {
  if constexpr (!std::is_same_v<T, float>) {
    if (has_fast_path(args)) {
      grid.x *= kParts;
      if (args.head_dim == 64) return launch_fast<T, C, 64>(args, tiles, grid, stream);
      if (args.head_dim == 80) return launch_fast<T, C, 80>(args, tiles, grid, stream);
      return launch_fast<T, C, 128>(args, tiles, grid, stream);
    }
  }
  grid.z = kPrefillTileRows / kGenericRows;
  return launch_dependent<prefill_generic<T, C>>({grid, kThreads}, stream, args, tiles);
}

}  // namespace

cudaError_t prefill_attention(const AttentionArgs& args, const int32_t* tiles, int64_t num_tiles, cudaStream_t stream) {
  if (num_tiles == 0) return cudaGetLastError();
  const dim3 grid(static_cast<unsigned>(num_tiles), static_cast<unsigned>(args.heads));
  return with_element(args.element, [&](auto zero) {
    using T = decltype(zero);
    return with_cells<T>(args, [&](auto cell) { return launch_prefill<T, decltype(cell)>(args, tiles, grid, stream); });
  });
}

}  // namespace optserve::kernels

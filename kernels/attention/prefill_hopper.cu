// Attention of prompts on Hopper: tiles of 128 rows against tiles of 128 keys (FlashAttention-3). A block stays on its
// multiprocessor and takes one (tile, head) after another. One of its warps copies queries and pages of keys and values
// through tensor maps, swizzled, up to kStages tiles ahead and into the next (tile, head). Two warpgroups of 64 rows
// each multiply. A warpgroup starts the scores of one tile together with the results of the previous tile, and turns
// scores into weights while the tensor cores work on its results or for the other warpgroup.
#include <algorithm>

#include "kernels/attention/hopper_ptx.cuh"
#include "kernels/attention/kv_cells.cuh"
#include "kernels/attention/tile.cuh"
#include "kernels/dependent_launch.cuh"
#include "kernels/hopper_tensor_map.h"

namespace optserve::kernels {
namespace {

constexpr int kGroups = 2, kGroupThreads = 128, kGroupRows = 64;
constexpr int kGroupWarps = kGroupThreads / kWarpLanes;
constexpr int kMultiplying = kGroups * kGroupThreads;   // threads
constexpr int kThreads = kMultiplying + kGroupThreads;  // the first warp of the others copies
constexpr int kCopyRegisters = 40, kMultiplyRegisters = 232;
constexpr int kTileKeys = 128, kTilePages = kTileKeys / kBlockTokens;
constexpr int kBoxColumns = 64, kRowBytes = 128;      // what a swizzle spans
constexpr int kPageBytes = kBlockTokens * kRowBytes;  // of 64 columns
constexpr int kHalfBytes = kTileKeys * kRowBytes;     // 64 columns of a tile
constexpr int kScores = kTileKeys / 2;                // of a thread
constexpr int kSharedAlignment = 1024;                // of what is swizzled
// Names of barriers: each warpgroup has one for its turn to start multiplications, and one is for the threads of both.
constexpr int kTurnBarrier = 1, kBothBarrier = 3;
static_assert(kPrefillTileRows == kGroups * kGroupRows);

template <int kDim>
struct Shape {
  static constexpr int kHalves = kDim / kBoxColumns;
  static constexpr int kTileBytes = kHalves * kHalfBytes;  // of queries, keys or values
  static constexpr int kStages = kDim == 64 ? 3 : 2;
  static constexpr int kBarriersAt = (1 + 2 * kStages) * kTileBytes;
  static constexpr int kBytes = kSharedAlignment + kBarriersAt + (4 * kStages + 2) * 8;
};

// A block's shared memory: queries, then stages of keys and of values, then barriers.
template <int kDim>
struct Rooms {
  using S = Shape<kDim>;
  uint32_t queries;

  __device__ __forceinline__ explicit Rooms(uint32_t shared)
      : queries((shared + kSharedAlignment - 1) / kSharedAlignment * kSharedAlignment) {}
  __device__ __forceinline__ uint32_t keys(int stage) const { return queries + (1 + stage) * S::kTileBytes; }
  __device__ __forceinline__ uint32_t values(int stage) const { return keys(S::kStages + stage); }
  __device__ __forceinline__ uint32_t barriers(int stage) const { return queries + S::kBarriersAt + stage * 32; }
  __device__ __forceinline__ uint32_t keys_full(int stage) const { return barriers(stage); }
  __device__ __forceinline__ uint32_t keys_empty(int stage) const { return barriers(stage) + 8; }
  __device__ __forceinline__ uint32_t values_full(int stage) const { return barriers(stage) + 16; }
  __device__ __forceinline__ uint32_t values_empty(int stage) const { return barriers(stage) + 24; }
  __device__ __forceinline__ uint32_t queries_full() const { return barriers(S::kStages); }
  __device__ __forceinline__ uint32_t queries_empty() const { return barriers(S::kStages) + 8; }

  __device__ __forceinline__ void init() const {
    for (int i = 0; i < S::kStages; ++i) {
      init_barrier(keys_full(i), 1);
      init_barrier(keys_empty(i), kGroupWarps * kGroups);
      init_barrier(values_full(i), 1);
      init_barrier(values_empty(i), kGroupWarps * kGroups);
    }
    init_barrier(queries_full(), 1);
    init_barrier(queries_empty(), kGroupWarps * kGroups);
    fence_barriers();
  }
};

// The stage and parity of a block's i-th tile of keys.
template <int kStages>
struct Turn {
  int stage;
  uint32_t parity;
  __device__ __forceinline__ explicit Turn(int i) : stage(i % kStages), parity(i / kStages % 2) {}
};

// A tile of rows for one head.
struct Work {
  Tile tile;
  int head;
  int end;    // of the positions that its rows see
  int tiles;  // of keys

  __device__ __forceinline__ Work(const AttentionArgs& args, const int32_t* tile_of_rows, int head_)
      : tile(find_tile(args, tile_of_rows, 0, kPrefillTileRows)),
        head(head_),
        end(max(tile.visible + tile.rows - 1, 0)),
        tiles((end + kTileKeys - 1) / kTileKeys) {}
};

// The work of all blocks. The last tiles of a sequence have the longest contexts, so they begin first; and every other
// round assigns tiles to blocks in reverse order, so that all blocks have about the same amount of work.
struct Works {
  const int32_t* tiles;
  int num_tiles, heads;

  // Calls take(work) for each work of this block.
  template <class Take>
  __device__ __forceinline__ void each(const AttentionArgs& args, const Take& take) const {
    const int count = num_tiles * heads, blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
    bool backwards = false;
    for (int first = 0; first < count; first += blocks, backwards = !backwards) {
      const int index = first + (backwards ? blocks - 1 - block : block);
      if (index >= count) continue;
      take(Work(args, tiles + 2 * static_cast<int64_t>(num_tiles - 1 - index / heads), index % heads));
    }
  }
};

// Tensor maps of 16-bit elements, for fp16 and bf16 alike: a copy does not depend on the type.
struct Maps {
  CUtensorMap queries;       // of qkv: boxes of the rows of a warpgroup
  CUtensorMap keys, values;  // boxes of a page
};

// The warp that copies. Lane i < kTilePages copies page i of a tile; beyond the last page it copies that page again,
// whose scores nobody uses.
template <int kDim>
class Copying {
  using S = Shape<kDim>;

 public:
  __device__ __forceinline__ Copying(const AttentionArgs& args, const Maps& maps, const Rooms<kDim>& rooms)
      : args_(args), maps_(maps), rooms_(rooms), lane_(static_cast<int>(threadIdx.x) % kWarpLanes) {}

  __device__ __forceinline__ void copy(const Work& work) {
    if (work.tiles == 0) return;
    const int last_page = (work.end - 1) / kBlockTokens;
    const int32_t* table = args_.block_table + load_now(args_.table_rows + work.tile.sequence) * args_.table_stride;
    int row_before = 0;
    for (int i = 0; i <= work.tiles; ++i) {
      int row = 0;  // of the cells of this lane's page, all heads and blocks one after the other
      if (i < work.tiles) {
        const int page = min(i * kTilePages + min(lane_, kTilePages - 1), last_page);
        row = (load_now(table + page) * args_.heads + work.head) * kBlockTokens;
        const Turn<S::kStages> turn(done_ + i);
        copy_pages(maps_.keys, rooms_.keys(turn.stage), rooms_.keys_full(turn.stage), rooms_.keys_empty(turn.stage),
                   turn.parity, row);
      }
      if (i == 0) copy_queries(work);
      if (i > 0) {  // values are wanted one tile later than keys
        const Turn<S::kStages> turn(done_ + i - 1);
        copy_pages(maps_.values, rooms_.values(turn.stage), rooms_.values_full(turn.stage),
                   rooms_.values_empty(turn.stage), turn.parity, row_before);
      }
      row_before = row;
    }
    done_ += work.tiles;
  }

 private:
  __device__ __forceinline__ void copy_pages(const CUtensorMap& map, uint32_t to, uint32_t full, uint32_t empty,
                                             uint32_t parity, int row) const {
    await(empty, parity ^ 1);
    if (lane_ == 0) arrive_expecting(full, S::kTileBytes);
    __syncwarp();
    if (lane_ >= kTilePages) return;
#pragma unroll
    for (int half = 0; half < S::kHalves; ++half) {
      copy_box(to + half * kHalfBytes + lane_ * kPageBytes, map, half * kBoxColumns, row, full);
    }
  }

  // Rows beyond the end of the tile belong to other sequences: their results are not stored.
  __device__ __forceinline__ void copy_queries(const Work& work) {
    await(rooms_.queries_empty(), queries_parity_ ^ 1);
    queries_parity_ ^= 1;
    if (lane_ == 0) arrive_expecting(rooms_.queries_full(), S::kTileBytes);
    __syncwarp();
    if (lane_ >= kGroups) return;
#pragma unroll
    for (int half = 0; half < S::kHalves; ++half) {
      copy_box(rooms_.queries + half * kHalfBytes + lane_ * kGroupRows * kRowBytes, maps_.queries,
               work.head * kDim + half * kBoxColumns, work.tile.first_row + lane_ * kGroupRows, rooms_.queries_full());
    }
  }

  const AttentionArgs& args_;
  const Maps& maps_;
  const Rooms<kDim>& rooms_;
  int lane_;
  int done_ = 0;  // tiles of keys
  uint32_t queries_parity_ = 0;
};

// The rows of a warpgroup. A thread has rows lane / 4 and lane / 4 + 8 of the 16 of its warp, and of each the columns
// 8 n + 2 (lane % 4) and the next one.
template <typename T, int kDim>
class Group {
  using S = Shape<kDim>;

 public:
  __device__ __forceinline__ Group(const AttentionArgs& args, const Rooms<kDim>& rooms)
      : args_(args),
        rooms_(rooms),
        index_(static_cast<int>(threadIdx.x) / kGroupThreads),
        thread_(static_cast<int>(threadIdx.x) % kGroupThreads),
        lane_(thread_ % kWarpLanes),
        row_(index_ * kGroupRows + thread_ / kWarpLanes * 16 + lane_ / 4),
        scale_(kLog2E / sqrtf(static_cast<float>(kDim))) {}

  __device__ __forceinline__ void attend(const Work& work) {
#pragma unroll
    for (float& sum : out_) sum = 0;
    largest_[0] = largest_[1] = -INFINITY;
    total_[0] = total_[1] = 0;
    if (work.tiles > 0) {
      if (work.tiles > 1 && index_ == 1) come_by(kTurnBarrier, kMultiplying);  // the other one has the first turn
      const Turn<S::kStages> turn(done_);
      await(rooms_.queries_full(), queries_parity_);
      await(rooms_.keys_full(turn.stage), turn.parity);
      hold(scores_);
      begin_multiplying();
      start_scores(turn.stage);
      await_batches<0>();
      hold(scores_);
      release(rooms_.keys_empty(turn.stage));
      if (work.tiles == 1) release(rooms_.queries_empty());
      weigh(work, 0);
      pack_weights();
      for (int i = 1; i < work.tiles; ++i) step(work, i);
      finish_values(work);
      done_ += work.tiles;
      queries_parity_ ^= 1;
    }
    store(work);
  }

 private:
  // A warp calls this when it has read a stage.
  __device__ __forceinline__ void release(uint32_t empty) const {
    if (lane_ == 0) arrive(empty);
  }

  __device__ __forceinline__ void start_scores(int stage) {
    const uint32_t queries = rooms_.queries + index_ * kGroupRows * kRowBytes, keys = rooms_.keys(stage);
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      const uint32_t at = k / 4 * kHalfBytes + k % 4 * 32;
      multiply_keys<T>(scores_, swizzled_rows(queries + at), swizzled_rows(keys + at), k > 0);
    }
    end_batch();
  }

  __device__ __forceinline__ void start_values(int stage) {
#pragma unroll
    for (int k = 0; k < kTileKeys / 16; ++k) {
      add_values<T>(out_, weights_[k], swizzled_columns(rooms_.values(stage) + k * 16 * kRowBytes, kHalfBytes));
    }
    end_batch();
  }

  // Computes the scores of tile i and the results of the tile before it.
  __device__ __forceinline__ void step(const Work& work, int i) {
    const Turn<S::kStages> turn(done_ + i), before(done_ + i - 1);
    meet(kTurnBarrier + index_, kMultiplying);
    await(rooms_.keys_full(turn.stage), turn.parity);
    await(rooms_.values_full(before.stage), before.parity);
    hold(scores_);
    hold(out_);
    begin_multiplying();
    start_scores(turn.stage);
    start_values(before.stage);
    const bool is_last = i + 1 == work.tiles;
    if (!is_last || index_ == 0) come_by(kTurnBarrier + 1 - index_, kMultiplying);
    await_batches<1>();
    hold(scores_);
    release(rooms_.keys_empty(turn.stage));
    if (is_last) release(rooms_.queries_empty());
    weigh(work, i * kTileKeys);
    await_batches<0>();
    hold(out_);
    release(rooms_.values_empty(before.stage));
#pragma unroll
    for (int n = 0; n < kDim / 2; ++n) out_[n] *= rescale_[n / 2 % 2];
    pack_weights();
  }

  // Computes the results of the last tile. Values beyond the last position may be NaN, so they are replaced by zeros.
  __device__ __forceinline__ void finish_values(const Work& work) {
    const Turn<S::kStages> turn(done_ + work.tiles - 1);
    const int known = work.end - (work.tiles - 1) * kTileKeys;
    await(rooms_.values_full(turn.stage), turn.parity);
    if (known < kTileKeys) {
      constexpr int kVectors = kRowBytes / 16;
      const int behind = (kTileKeys - known) * kVectors;
      for (int i = static_cast<int>(threadIdx.x); i < S::kHalves * behind; i += kMultiplying) {
        const uint32_t to = rooms_.values(turn.stage) + i / behind * kHalfBytes + known * kRowBytes + i % behind * 16;
        asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(to), "r"(0) : "memory");
      }
      fence_shared();
      meet(kBothBarrier, kMultiplying);
    }
    hold(out_);
    begin_multiplying();
    start_values(turn.stage);
    await_batches<0>();
    hold(out_);
    release(rooms_.values_empty(turn.stage));
  }

  // Turns the scores of the keys from `first` on into weights.
  __device__ __forceinline__ void weigh(const Work& work, int first) {
    const int visible = work.tile.visible + row_ - first;  // of this tile, to the thread's first row
    if (first + kTileKeys > work.tile.visible + index_ * kGroupRows) {
      const int column = lane_ % 4 * 2;
#pragma unroll
      for (int n = 0; n < kScores; ++n) {
        if (n / 4 * 8 + column + n % 2 >= visible + n / 2 % 2 * 8) scores_[n] = -INFINITY;
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float now = largest_[r];
#pragma unroll
      for (int n = 2 * r; n < kScores; n += 4) now = fmaxf(now, fmaxf(scores_[n], scores_[n + 1]));
      now = fmaxf(now, __shfl_xor_sync(kAllLanes, now, 1));
      now = fmaxf(now, __shfl_xor_sync(kAllLanes, now, 2));
      rescale_[r] = exp2_fast((largest_[r] - now) * scale_);
      largest_[r] = now;
      const float offset = now * scale_;
      float sum = 0;
#pragma unroll
      for (int n = 2 * r; n < kScores; n += 4) {
        scores_[n] = exp2_fast(scores_[n] * scale_ - offset);
        scores_[n + 1] = exp2_fast(scores_[n + 1] * scale_ - offset);
        sum += scores_[n] + scores_[n + 1];
      }
      total_[r] = total_[r] * rescale_[r] + sum;
    }
  }

  __device__ __forceinline__ void pack_weights() {
#pragma unroll
    for (int k = 0; k < kTileKeys / 16; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) weights_[k][i] = pack_pair<T>(scores_[8 * k + 2 * i], scores_[8 * k + 2 * i + 1]);
    }
  }

  __device__ __forceinline__ void store(const Work& work) {
    const int64_t width = static_cast<int64_t>(args_.heads) * kDim;
    T* first = static_cast<T*>(args_.out) + (work.tile.first_row + row_) * width + work.head * kDim + lane_ % 4 * 2;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      total_[r] += __shfl_xor_sync(kAllLanes, total_[r], 1);
      total_[r] += __shfl_xor_sync(kAllLanes, total_[r], 2);
      if (row_ + 8 * r >= work.tile.rows) continue;
      const float factor = total_[r] == 0 ? 0 : __fdividef(1, total_[r]);  // a row that sees nothing
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        *reinterpret_cast<uint32_t*>(first + r * 8 * width + n * 8) =
            pack_pair<T>(out_[4 * n + 2 * r] * factor, out_[4 * n + 2 * r + 1] * factor);
      }
    }
  }

  const AttentionArgs& args_;
  const Rooms<kDim>& rooms_;
  int done_ = 0;  // tiles of keys
  uint32_t queries_parity_ = 0;
  int index_, thread_, lane_;
  int row_;      // the thread's first one in the tile
  float scale_;  // turns a score into an exponent of 2
  float scores_[kScores];
  uint32_t weights_[kTileKeys / 16][4];
  float out_[kDim / 2];
  float largest_[2];  // of the scores before the scale
  float total_[2];    // of this thread's columns
  float rescale_[2];
};

template <typename T, int kDim>
__global__ void __launch_bounds__(kThreads, 1)
    prefill_kernel(const __grid_constant__ Maps maps, const __grid_constant__ AttentionArgs args, const Works works) {
  extern __shared__ unsigned char shared[];
  allow_next();
  const Rooms<kDim> rooms(shared_address(shared));
  if (threadIdx.x == 0) rooms.init();
  __syncthreads();
  wait_for_previous();
  // Each role stays in one branch until it ends, so that each can have its own number of registers.
  if (threadIdx.x >= kMultiplying) {
    give_registers<kCopyRegisters>();
    if (threadIdx.x >= kMultiplying + kWarpLanes) return;
    Copying<kDim> copying(args, maps, rooms);
    works.each(args, [&](const Work& work) { copying.copy(work); });
  } else {
    take_registers<kMultiplyRegisters>();
    Group<T, kDim> group(args, rooms);
    works.each(args, [&](const Work& work) { group.attend(work); });
  }
}

bool make_maps(const AttentionArgs& args, Maps& maps) {
  const int64_t width = static_cast<int64_t>(args.heads) * args.head_dim;
  const int64_t cells = args.num_blocks * args.heads * kBlockTokens;
  return make_half_map(args.qkv, {args.num_tokens, 3 * width}, 3 * width, kGroupRows, maps.queries) &&
         make_half_map(args.keys, {cells, args.head_dim}, args.head_dim, kBlockTokens, maps.keys) &&
         make_half_map(args.values, {cells, args.head_dim}, args.head_dim, kBlockTokens, maps.values);
}

template <typename T, int kDim>
cudaError_t launch(const AttentionArgs& args, const Works& works, const DeviceLimits& device, cudaStream_t stream) {
  constexpr auto kKernel = prefill_kernel<T, kDim>;
  const cudaError_t error =
      cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Shape<kDim>::kBytes);
  if (error != cudaSuccess) return error;
  Maps maps;
  if (!make_maps(args, maps)) return cudaErrorInvalidValue;
  const auto blocks = static_cast<unsigned>(std::min(works.num_tiles * works.heads, device.multiprocessors));
  return launch_dependent<kKernel>({dim3(blocks), dim3(kThreads), Shape<kDim>::kBytes}, stream, maps, args, works);
}

}  // namespace

bool can_prefill_on_hopper(const AttentionArgs& args, const DeviceLimits& device) {
  if (device.compute_capability != 90 || args.key_scales != nullptr || !has_fast_path(args)) return false;
  if (args.head_dim != 64 && args.head_dim != 128) return false;
  if (args.num_blocks * args.heads > INT32_MAX / kBlockTokens) return false;  // rows of a tensor map are ints
  return Shape<128>::kBytes <= device.shared_bytes_max && encode_tiled() != nullptr;
}

cudaError_t prefill_attention_on_hopper(const AttentionArgs& args, const int32_t* tiles, int64_t num_tiles,
                                        const DeviceLimits& device, cudaStream_t stream) {
  if (!can_prefill_on_hopper(args, device)) return cudaErrorInvalidValue;
  if (num_tiles == 0) return cudaGetLastError();
  const Works works{tiles, static_cast<int>(num_tiles), args.heads};
  if (args.element == Element::kF16) {
    return args.head_dim == 64 ? launch<__half, 64>(args, works, device, stream)
                               : launch<__half, 128>(args, works, device, stream);
  }
  return args.head_dim == 64 ? launch<__nv_bfloat16, 64>(args, works, device, stream)
                             : launch<__nv_bfloat16, 128>(args, works, device, stream);
}

}  // namespace optserve::kernels

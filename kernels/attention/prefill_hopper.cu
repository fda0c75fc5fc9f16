// Rows of prompts on Hopper: tiles of 128 rows against tiles of 128 keys (FlashAttention-3). One warp copies pages of
// keys and values by tensor maps, swizzled, up to kStages tiles ahead. Two warpgroups of 64 rows each multiply; a
// warpgroup starts the scores of one tile and the results of the tile before together, and weighs scores while the
// tensor cores work on its results or on the other warpgroup's turn.
#include "kernels/attention/hopper_ptx.cuh"
#include "kernels/attention/kv_cells.cuh"
#include "kernels/attention/tile.cuh"
#include "kernels/dependent_launch.cuh"
#include "kernels/hopper_tensor_map.h"

namespace optserve::kernels {
namespace {

constexpr int kGroups = 2, kGroupThreads = 128, kGroupRows = 64;
constexpr int kMultiplying = kGroups * kGroupThreads;   // threads
constexpr int kThreads = kMultiplying + kGroupThreads;  // the first warp of the others copies
constexpr int kCopyRegisters = 40, kMultiplyRegisters = 232;
constexpr int kTileKeys = 128, kTilePages = kTileKeys / kBlockTokens;
constexpr int kBoxColumns = 64, kRowBytes = 128;      // what a swizzle spans
constexpr int kPageBytes = kBlockTokens * kRowBytes;  // of 64 columns
constexpr int kHalfBytes = kTileKeys * kRowBytes;     // 64 columns of a tile
constexpr int kScores = kTileKeys / 2;                // of a thread
constexpr int kSharedAlignment = 1024;                // of what is swizzled
// Names of barriers: a warpgroup's turn to start multiplications, the threads of a warpgroup, those of both.
constexpr int kTurnBarrier = 1, kGroupBarrier = 3, kBothBarrier = 5;
static_assert(kPrefillTileRows == kGroups * kGroupRows);

template <int kDim>
struct Shape {
  static constexpr int kHalves = kDim / kBoxColumns;
  static constexpr int kTileBytes = kHalves * kHalfBytes;  // of queries, keys or values
  static constexpr int kStages = kDim == 64 ? 3 : 2;
  static constexpr int kBarriersAt = (1 + 2 * kStages) * kTileBytes;
  static constexpr int kBytes = kSharedAlignment + kBarriersAt + 4 * kStages * 8;
};

// What a block has in shared memory: queries, then stages of keys and of values, then barriers.
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

  __device__ __forceinline__ void init() const {
    for (int i = 0; i < S::kStages; ++i) {
      init_barrier(keys_full(i), 1);
      init_barrier(keys_empty(i), kGroups);
      init_barrier(values_full(i), 1);
      init_barrier(values_empty(i), kGroups);
    }
    fence_barriers();
  }
};

// Stage and parity of the i-th tile of keys.
template <int kStages>
struct Turn {
  int stage;
  uint32_t parity;
  __device__ __forceinline__ explicit Turn(int i) : stage(i % kStages), parity(i / kStages % 2) {}
};

// What a block has to do.
struct Work {
  Tile tile;
  int head;
  int end;    // of the positions that its rows see
  int tiles;  // of keys

  __device__ __forceinline__ Work(const AttentionArgs& args, const int32_t* tiles_of_rows)
      : tile(
            find_tile(args, tiles_of_rows + 2 * static_cast<int64_t>(gridDim.y - 1 - blockIdx.y), 0, kPrefillTileRows)),
        head(static_cast<int>(blockIdx.x)),
        end(max(tile.visible + tile.rows - 1, 0)),
        tiles((end + kTileKeys - 1) / kTileKeys) {}
};

// The warp that copies. Lane i < kTilePages copies page i of a tile; a page behind the last one is that one again,
// whose scores nobody uses.
template <int kDim>
__device__ __forceinline__ void copy_tiles(const AttentionArgs& args, const CUtensorMap& keys,
                                           const CUtensorMap& values, const Work& work, const Rooms<kDim>& rooms) {
  using S = Shape<kDim>;
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes, last_page = (work.end - 1) / kBlockTokens;
  const int32_t* table = args.block_table + load_now(args.table_rows + work.tile.sequence) * args.table_stride;
  const auto copy = [&](const CUtensorMap& map, uint32_t to, uint32_t full, uint32_t empty, uint32_t parity, int row) {
    await(empty, parity ^ 1);
    if (lane == 0) arrive_expecting(full, S::kTileBytes);
    __syncwarp();
    if (lane >= kTilePages) return;
#pragma unroll
    for (int half = 0; half < S::kHalves; ++half) {
      copy_box(to + half * kHalfBytes + lane * kPageBytes, map, half * kBoxColumns, row, full);
    }
  };
  int row_before = 0;
  for (int i = 0; i <= work.tiles; ++i) {
    int row = 0;  // of the cells of this lane's page, all heads and blocks one after the other
    if (i < work.tiles) {
      const int page = min(i * kTilePages + min(lane, kTilePages - 1), last_page);
      row = (load_now(table + page) * args.heads + work.head) * kBlockTokens;
      const Turn<S::kStages> turn(i);
      copy(keys, rooms.keys(turn.stage), rooms.keys_full(turn.stage), rooms.keys_empty(turn.stage), turn.parity, row);
    }
    if (i > 0) {  // values are wanted one tile later than keys
      const Turn<S::kStages> turn(i - 1);
      copy(values, rooms.values(turn.stage), rooms.values_full(turn.stage), rooms.values_empty(turn.stage), turn.parity,
           row_before);
    }
    row_before = row;
  }
}

// The rows of a warpgroup. A thread has rows lane / 4 and lane / 4 + 8 of the 16 of its warp, and of each the columns
// 8 n + 2 (lane % 4) and the next one.
template <typename T, int kDim>
class Group {
  using S = Shape<kDim>;

 public:
  __device__ __forceinline__ Group(const AttentionArgs& args, const Work& work, const Rooms<kDim>& rooms)
      : args_(args),
        work_(work),
        rooms_(rooms),
        index_(static_cast<int>(threadIdx.x) / kGroupThreads),
        thread_(static_cast<int>(threadIdx.x) % kGroupThreads),
        lane_(thread_ % kWarpLanes),
        row_(index_ * kGroupRows + thread_ / kWarpLanes * 16 + lane_ / 4),
        scale_(kLog2E / sqrtf(static_cast<float>(kDim))) {}

  __device__ __forceinline__ void run() {
    copy_queries();
    if (work_.tiles > 0) {
      if (work_.tiles > 1 && index_ == 1) come_by(kTurnBarrier, kMultiplying);  // the other one has the first turn
      await(rooms_.keys_full(0), 0);
      hold(scores_);
      begin_multiplying();
      start_scores(0);
      await_batches<0>();
      hold(scores_);
      release(rooms_.keys_empty(0));
      weigh(0);
      pack_weights();
      for (int i = 1; i < work_.tiles; ++i) step(i);
      finish_values();
    }
    store();
  }

 private:
  // Rows of this warpgroup to where its multiplications read them; zeros for those that do not exist.
  __device__ __forceinline__ void copy_queries() const {
    constexpr int kVectors = kDim / 8;
    const int64_t width = static_cast<int64_t>(args_.heads) * kDim;
    const T* first = static_cast<const T*>(args_.qkv) + work_.tile.first_row * 3 * width + work_.head * kDim;
#pragma unroll
    for (int i = 0; i < kGroupRows * kVectors / kGroupThreads; ++i) {
      const int at = i * kGroupThreads + thread_, row = index_ * kGroupRows + at / kVectors, vector = at % kVectors;
      uint4 raw{};
      if (row < work_.tile.rows) raw = *(reinterpret_cast<const uint4*>(first + row * 3 * width) + vector);
      const uint32_t to = rooms_.queries + vector / 8 * kHalfBytes + row * kRowBytes + (vector % 8 ^ row % 8) * 16;
      asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(raw.x), "r"(raw.y), "r"(raw.z), "r"(raw.w)
                   : "memory");
    }
    fence_shared();
    meet(kGroupBarrier + index_, kGroupThreads);
  }

  // One thread of a warpgroup says that all of it has read a stage.
  __device__ __forceinline__ void release(uint32_t empty) const {
    if (thread_ == 0) arrive(empty);
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

  // Scores of tile i, and results of the one before.
  __device__ __forceinline__ void step(int i) {
    const Turn<S::kStages> turn(i), before(i - 1);
    meet(kTurnBarrier + index_, kMultiplying);
    await(rooms_.keys_full(turn.stage), turn.parity);
    await(rooms_.values_full(before.stage), before.parity);
    hold(scores_);
    hold(out_);
    begin_multiplying();
    start_scores(turn.stage);
    start_values(before.stage);
    const bool is_last_turn = index_ == 1 && i + 1 == work_.tiles;
    if (!is_last_turn) come_by(kTurnBarrier + 1 - index_, kMultiplying);
    await_batches<1>();
    hold(scores_);
    release(rooms_.keys_empty(turn.stage));
    weigh(i * kTileKeys);
    await_batches<0>();
    hold(out_);
    release(rooms_.values_empty(before.stage));
#pragma unroll
    for (int n = 0; n < kDim / 2; ++n) out_[n] *= rescale_[n / 2 % 2];
    pack_weights();
  }

  // Results of the last tile. What stands behind the last position may be NaN: it becomes zero.
  __device__ __forceinline__ void finish_values() {
    const Turn<S::kStages> turn(work_.tiles - 1);
    const int known = work_.end - (work_.tiles - 1) * kTileKeys;
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
  }

  // Scores of the keys from `first` on become weights.
  __device__ __forceinline__ void weigh(int first) {
    const int visible = work_.tile.visible + row_ - first;  // of this tile, to the thread's first row
    if (first + kTileKeys > work_.tile.visible + index_ * kGroupRows) {
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

  __device__ __forceinline__ void store() {
    const int64_t width = static_cast<int64_t>(args_.heads) * kDim;
    T* first = static_cast<T*>(args_.out) + (work_.tile.first_row + row_) * width + work_.head * kDim + lane_ % 4 * 2;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      total_[r] += __shfl_xor_sync(kAllLanes, total_[r], 1);
      total_[r] += __shfl_xor_sync(kAllLanes, total_[r], 2);
      if (row_ + 8 * r >= work_.tile.rows) continue;
      const float factor = total_[r] == 0 ? 0 : __fdividef(1, total_[r]);  // a row that sees nothing
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        *reinterpret_cast<uint32_t*>(first + r * 8 * width + n * 8) =
            pack_pair<T>(out_[4 * n + 2 * r] * factor, out_[4 * n + 2 * r + 1] * factor);
      }
    }
  }

  const AttentionArgs& args_;
  const Work& work_;
  const Rooms<kDim>& rooms_;
  int index_, thread_, lane_;
  int row_;      // the thread's first one in the tile
  float scale_;  // turns a score into an exponent of 2
  float scores_[kScores];
  uint32_t weights_[kTileKeys / 16][4];
  float out_[kDim / 2] = {};
  float largest_[2] = {-INFINITY, -INFINITY};  // of the scores before the scale
  float total_[2] = {0, 0};                    // of this thread's columns
  float rescale_[2] = {1, 1};
};

template <typename T, int kDim>
__global__ void __launch_bounds__(kThreads, 1)
    prefill_kernel(const __grid_constant__ CUtensorMap keys, const __grid_constant__ CUtensorMap values,
                   const __grid_constant__ AttentionArgs args, const int32_t* tiles) {
  extern __shared__ unsigned char shared[];
  allow_next();
  const Rooms<kDim> rooms(shared_address(shared));
  if (threadIdx.x == 0) rooms.init();
  __syncthreads();
  wait_for_previous();
  const Work work(args, tiles);
  // Each role is one branch to its end, so that each can have its own number of registers.
  if (threadIdx.x >= kMultiplying) {
    give_registers<kCopyRegisters>();
    if (threadIdx.x < kMultiplying + kWarpLanes && work.tiles > 0) copy_tiles<kDim>(args, keys, values, work, rooms);
  } else {
    take_registers<kMultiplyRegisters>();
    Group<T, kDim>(args, work, rooms).run();
  }
}

template <typename T, int kDim>
cudaError_t launch(const AttentionArgs& args, const int32_t* tiles, int64_t num_tiles, cudaStream_t stream) {
  constexpr auto kKernel = prefill_kernel<T, kDim>;
  const cudaError_t error =
      cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Shape<kDim>::kBytes);
  if (error != cudaSuccess) return error;
  CUtensorMap keys, values;  // of 16-bit elements: copying them does not depend on which ones
  const int64_t rows = args.num_blocks * args.heads * kBlockTokens;
  if (!make_half_map(args.keys, {rows, kDim}, kDim, kBlockTokens, keys) ||
      !make_half_map(args.values, {rows, kDim}, kDim, kBlockTokens, values)) {
    return cudaErrorInvalidValue;
  }
  const dim3 grid(static_cast<unsigned>(args.heads), static_cast<unsigned>(num_tiles));
  return launch_dependent<kKernel>({grid, dim3(kThreads), Shape<kDim>::kBytes}, stream, keys, values, args, tiles);
}

}  // namespace

bool can_prefill_on_hopper(const AttentionArgs& args, const DeviceLimits& device) {
  if (device.compute_capability != 90 || args.key_scales != nullptr || !has_fast_path(args)) return false;
  if (args.head_dim != 64 && args.head_dim != 128) return false;
  if (args.num_blocks * args.heads > INT32_MAX / kBlockTokens) return false;  // rows of a tensor map are ints
  return Shape<128>::kBytes <= device.shared_bytes_max && encode_tiled() != nullptr;
}

cudaError_t prefill_attention_on_hopper(const AttentionArgs& args, const int32_t* tiles, int64_t num_tiles,
                                        cudaStream_t stream) {
  if (num_tiles == 0) return cudaGetLastError();
  if (args.element == Element::kF16) {
    return args.head_dim == 64 ? launch<__half, 64>(args, tiles, num_tiles, stream)
                               : launch<__half, 128>(args, tiles, num_tiles, stream);
  }
  return args.head_dim == 64 ? launch<__nv_bfloat16, 64>(args, tiles, num_tiles, stream)
                             : launch<__nv_bfloat16, 128>(args, tiles, num_tiles, stream);
}

}  // namespace optserve::kernels

// Two or three kernels. scan: a pass over all tiles of all rows, which leaves of each tile its largest logit, its sum
// of exponentials and its best id. weigh, if some row draws: masses of tiles. Then one warp a row draws, or one block a
// row truncates and draws.
#include "kernels/dependent_launch.cuh"
#include "kernels/sampling.h"
#include "kernels/sampling_cut.cuh"

namespace optserve::kernels {
namespace sampling {
namespace {

constexpr int kScanWarps = 8, kWeighWarps = 4, kFinishWarps = 4, kLogprobWarps = 8;
constexpr int kScanIds = kScanWarps * kTile;  // of one block

// ---- scan

// uses[i] = how often id first + i is known, in the bits of penalise(). All threads of the block.
__device__ void count_uses(const Plan& plan, const SamplingRow& row, int32_t first, uint32_t* uses) {
  for (int i = static_cast<int>(threadIdx.x); i < kScanIds; i += kScanWarps * kLanes) uses[i] = 0;
  __syncthreads();
  const int32_t* known = plan.args.history + row.slot * plan.args.history_stride;
  for (int i = static_cast<int>(threadIdx.x); i < row.position; i += kScanWarps * kLanes) {
    const int32_t id = known[i];
    if (id < first || id >= first + kScanIds || id >= plan.args.vocab_real) continue;
    if (i < row.prompt_tokens) {
      atomicOr(&uses[id - first], kUsedInPrompt);
    } else {
      atomicAdd(&uses[id - first], kUsedOnce);
    }
  }
  __syncthreads();
}

// What may be drawn of four neighbouring ids from `id` on, in place of `four`; keeps the lane's best.
__device__ inline void choose(const Masks& masks, int32_t id, float (&four)[4], float& best, int32_t& best_id) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (masks.hide(id + i)) four[i] = -INFINITY;
    if (four[i] > best) {
      best = four[i];
      best_id = id + i;
    }
  }
}

// One warp. `uses`: of the ids of this tile; null: no penalties.
__device__ inline void scan_tile(const Plan& plan, const SamplingRow& row, int64_t index, int tile,
                                 const uint32_t* uses) {
  const auto vocab_real = static_cast<int32_t>(plan.args.vocab_real);
  const Masks masks = masks_of(plan, row);
  float v[kSteps][4];
  load_tile(plan.args.logits + index * plan.args.vocab, vocab_real, plan.aligned, tile, kAllGroups, v);
  Summary summary{-FLT_MAX, 0, -INFINITY, INT32_MAX};
  bool broken = false;
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const int32_t id = id_at(tile, step, 0);
    float four[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      summary.largest = fmaxf(summary.largest, v[step][i]);
      broken |= id + i < vocab_real && !(fabsf(v[step][i]) <= FLT_MAX);
      four[i] = uses == nullptr ? v[step][i] : penalise(v[step][i], uses[id - tile * kTile + i], row);
    }
    choose(masks, id, four, summary.best, summary.best_id);
    if (uses != nullptr && id < vocab_real) {
      float* copy = plan.penalised + index * plan.penalised_stride + id;
      *reinterpret_cast<float4*>(copy) = make_float4(four[0], four[1], four[2], four[3]);
    }
    if (plan.group_maxima == nullptr) continue;
    float group = fmaxf(fmaxf(four[0], four[1]), fmaxf(four[2], four[3]));
    for (int distance = 1; distance < kGroup / 4; distance *= 2) {
      group = fmaxf(group, __shfl_xor_sync(kAllLanes, group, distance));
    }
    if (lane_id() % (kGroup / 4) == 0)
      plan.group_maxima[(index * plan.tiles + tile) * kTileGroups + id % kTile / kGroup] = group;
  }
  summary.largest = warp_max(summary.largest);
  warp_best(summary.best, summary.best_id);
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
#pragma unroll
    for (int i = 0; i < 4; ++i) summary.sum += __expf(v[step][i] - summary.largest);
  }
  summary.sum = warp_sum(summary.sum);
  if (__any_sync(kAllLanes, broken)) summary.sum = NAN;
  if (lane_id() == 0) plan.summaries[index * plan.tiles + tile] = summary;
}

template <bool kPenalties>
__global__ void __launch_bounds__(kScanWarps* kLanes) scan_kernel(const Plan plan) {
  __shared__ uint32_t uses[kPenalties ? kScanIds : 1];
  allow_next();
  wait_for_previous();
  const int chunks = (plan.tiles + kScanWarps - 1) / kScanWarps;
  const int index = static_cast<int>(blockIdx.x) / chunks, chunk = static_cast<int>(blockIdx.x) % chunks;
  const SamplingRow row = plan.args.rows[index];
  if (row.slot < 0) return;
  const bool penalised = kPenalties && has_penalties(row);
  if (penalised) count_uses(plan, row, chunk * kScanIds, uses);
  const int tile = chunk * kScanWarps + warp_id();
  if (tile < plan.tiles) scan_tile(plan, row, index, tile, penalised ? uses + warp_id() * kTile : nullptr);
}

// ---- weigh

// Masses of the tiles of rows that draw from all ids or go straight to top-p. One warp a tile.
__global__ void __launch_bounds__(kWeighWarps* kLanes) weigh_kernel(const Plan plan) {
  allow_next();
  wait_for_previous();
  const int chunks = (plan.tiles + kWeighWarps - 1) / kWeighWarps;
  const int index = static_cast<int>(blockIdx.x) / chunks;
  const int tile = static_cast<int>(blockIdx.x) % chunks * kWeighWarps + warp_id();
  if (tile >= plan.tiles) return;
  const SamplingRow row = plan.args.rows[index];
  if (row.slot < 0 || is_greedy(row) || effective_top_k(plan, row) > 0) return;
  const Summary summary = merge_summaries(plan, index);
  if (!may_draw(summary)) return;
  const RowView view = view_of(plan, row, index, summary);
  const uint64_t mass = tile_sum(view, tile, kAllGroups, MassOfKept{view, no_cut()});
  if (lane_id() == 0) view.tile_masses[tile] = mass;
}

// ---- draw

// One lane of one warp a row.
__device__ void store(const Plan& plan, const SamplingRow& row, int64_t index, int32_t id, const Summary& summary) {
  float logprob = 0;
  if (id >= 0) {
    const auto logit = static_cast<double>(plan.args.logits[index * plan.args.vocab + id]);
    logprob = static_cast<float>(logit - static_cast<double>(summary.largest) - static_cast<double>(logf(summary.sum)));
  }
  plan.args.ids[index] = id;
  plan.args.logprobs[index] = logprob;
  plan.args.history[row.slot * plan.args.history_stride + row.position] = id >= 0 ? id : 0;
}

__device__ inline void store_padding(const Plan& plan, int64_t index) {
  plan.args.ids[index] = -1;
  plan.args.logprobs[index] = 0;
}

__device__ inline double uniform_of(const SamplingRow& row) {
  return uniform_at(row.seed, static_cast<uint64_t>(row.position));
}

// One warp a row; no row truncates.
template <bool kDraw>
__global__ void __launch_bounds__(kFinishWarps* kLanes) finish_kernel(const Plan plan) {
  allow_next();
  wait_for_previous();
  const int64_t index = int64_t{blockIdx.x} * kFinishWarps + warp_id();
  if (index >= plan.args.num_rows) return;
  const SamplingRow row = plan.args.rows[index];
  if (row.slot < 0) {
    if (lane_id() == 0) store_padding(plan, index);
    return;
  }
  const Summary summary = merge_summaries(plan, index);
  int32_t id = may_draw(summary) ? summary.best_id : -1;
  if constexpr (kDraw) {
    if (id >= 0 && !is_greedy(row)) id = draw(view_of(plan, row, index, summary), no_cut(), uniform_of(row));
  }
  if (lane_id() == 0) store(plan, row, index, id, summary);
}

// One block a row. All warps merge the same summaries, so that they take the same branches.
__global__ void __launch_bounds__(kCutThreads, 2) truncate_kernel(const Plan plan) {
  __shared__ Shared shared;
  allow_next();
  wait_for_previous();
  const int64_t index = blockIdx.x;
  const SamplingRow& row = plan.args.rows[index];
  if (row.slot < 0) {
    if (threadIdx.x == 0) store_padding(plan, index);
    return;
  }
  const Summary summary = merge_summaries(plan, index);
  int32_t id = may_draw(summary) ? summary.best_id : -1;
  if (id >= 0 && !is_greedy(row)) {
    if (threadIdx.x == 0) shared.row = view_of(plan, row, index, summary);
    __syncthreads();
    const RowView& view = shared.row;
    const int32_t top_k = effective_top_k(plan, row);
    Cut cut = no_cut();
    if (top_k > 0 || row.top_p < 1.0f) {
      cut = truncate(view, top_k, row.top_p, shared);
      measure_tiles(view, cut.logit, MassOfKept{view, cut});
    }
    if (warp_id() == 0) id = draw(view, cut, uniform_of(row));
  }
  if (threadIdx.x == 0) store(plan, row, index, id, summary);
}

// ---- log probabilities of given ids

// Sums of exponentials relative to different largest logits.
__device__ inline void add_exponentials(float& largest, float& sum, float other_largest, float other_sum) {
  const float common = fmaxf(largest, other_largest);
  sum = sum * __expf(largest - common) + other_sum * __expf(other_largest - common);
  largest = common;
}

struct LogprobRows {
  const float* logits;
  int64_t vocab;
  int32_t vocab_real;
  int tiles;
  bool aligned;
  const int32_t* targets;
  float* out;
};

__global__ void __launch_bounds__(kLogprobWarps* kLanes) logprob_kernel(const LogprobRows args) {
  __shared__ float largest_of[kLogprobWarps], sum_of[kLogprobWarps];
  allow_next();
  wait_for_previous();
  const int32_t target = args.targets[blockIdx.x];
  if (target < 0) {
    if (threadIdx.x == 0) args.out[blockIdx.x] = 0;
    return;
  }
  const float* logits = args.logits + blockIdx.x * args.vocab;
  float largest = -FLT_MAX, sum = 0;
  bool broken = target >= args.vocab_real;
  for (int tile = warp_id(); tile < args.tiles; tile += kLogprobWarps) {
    float v[kSteps][4], tile_largest = -FLT_MAX, tile_sum = 0;
    load_tile(logits, args.vocab_real, args.aligned, tile, kAllGroups, v);
#pragma unroll
    for (int i = 0; i < kSteps * 4; ++i) {
      tile_largest = fmaxf(tile_largest, v[i / 4][i % 4]);
      broken |= id_at(tile, i / 4, i % 4) < args.vocab_real && !(fabsf(v[i / 4][i % 4]) <= FLT_MAX);
    }
#pragma unroll
    for (int i = 0; i < kSteps * 4; ++i) tile_sum += __expf(v[i / 4][i % 4] - tile_largest);
    add_exponentials(largest, sum, tile_largest, tile_sum);
  }
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
    const float other_largest = __shfl_xor_sync(kAllLanes, largest, distance);
    const float other_sum = __shfl_xor_sync(kAllLanes, sum, distance);
    add_exponentials(largest, sum, other_largest, other_sum);
  }
  if (lane_id() == 0) {
    largest_of[warp_id()] = largest;
    sum_of[warp_id()] = sum;
  }
  broken = __syncthreads_or(broken) != 0;
  if (threadIdx.x != 0) return;
  for (int warp = 1; warp < kLogprobWarps; ++warp) add_exponentials(largest, sum, largest_of[warp], sum_of[warp]);
  const double logprob = broken ? NAN : static_cast<double>(logits[target]) - largest - logf(sum);
  args.out[blockIdx.x] = static_cast<float>(logprob);
}

// ---- host

int64_t divide_up(int64_t count, int64_t unit) { return (count + unit - 1) / unit; }

int tiles_of(int64_t ids) { return static_cast<int>(divide_up(ids, kTile)); }

bool are_rows_aligned(const float* logits, int64_t vocab) {
  return vocab % 4 == 0 && reinterpret_cast<uintptr_t>(logits) % sizeof(float4) == 0;
}

constexpr size_t kPartAlignment = 256;

// Hands out parts of the scratch; of a null scratch, only their sizes.
class Parts {
 public:
  explicit Parts(void* scratch) : begin_(reinterpret_cast<uintptr_t>(scratch)), end_(begin_) {}
  template <class T>
  T* take(int64_t count) {
    const uintptr_t part = (end_ + kPartAlignment - 1) / kPartAlignment * kPartAlignment;
    end_ = part + static_cast<size_t>(count) * sizeof(T);
    return reinterpret_cast<T*>(part);
  }
  size_t bytes() const { return end_ - begin_; }

 private:
  uintptr_t begin_, end_;
};

Parts take_parts(void* scratch, int64_t num_rows, int64_t vocab, Plan& plan) {
  const int64_t tiles = tiles_of(vocab);
  Parts parts(scratch);
  plan.summaries = parts.take<Summary>(num_rows * tiles);
  plan.tile_masses = parts.take<uint64_t>(num_rows * tiles);
  plan.group_maxima = parts.take<float>(num_rows * tiles * kTileGroups);
  plan.penalised_stride = (vocab + 3) / 4 * 4;
  plan.penalised = parts.take<float>(num_rows * plan.penalised_stride);
  return parts;
}

// One block a row, or blocks that each take `warps` tiles of a row, or `warps` rows.
LaunchShape shape_of(int64_t blocks, int warps) {
  return {static_cast<unsigned>(blocks), static_cast<unsigned>(warps * kLanes)};
}

cudaError_t launch_draw(const Plan& plan, cudaStream_t stream) {
  const int64_t rows = plan.args.num_rows, chunks = divide_up(plan.tiles, kWeighWarps);
  const cudaError_t error = launch_dependent<weigh_kernel>(shape_of(rows * chunks, kWeighWarps), stream, plan);
  if (error != cudaSuccess) return error;
  if (plan.group_maxima != nullptr) return launch_dependent<truncate_kernel>(shape_of(rows, kCutWarps), stream, plan);
  return launch_dependent<finish_kernel<true>>(shape_of(divide_up(rows, kFinishWarps), kFinishWarps), stream, plan);
}

cudaError_t launch(const Plan& plan, uint32_t features, cudaStream_t stream) {
  const int64_t rows = plan.args.num_rows;
  const LaunchShape scan = shape_of(rows * divide_up(plan.tiles, kScanWarps), kScanWarps);
  const cudaError_t error = plan.penalised != nullptr ? launch_dependent<scan_kernel<true>>(scan, stream, plan)
                                                      : launch_dependent<scan_kernel<false>>(scan, stream, plan);
  if (error != cudaSuccess) return error;
  if ((features & (kFeatureDraw | kFeatureTruncate)) != 0) return launch_draw(plan, stream);
  return launch_dependent<finish_kernel<false>>(shape_of(divide_up(rows, kFinishWarps), kFinishWarps), stream, plan);
}

}  // namespace
}  // namespace sampling

cudaError_t sample(const SamplingArgs& args, uint32_t features, void* scratch, cudaStream_t stream) {
  constexpr int64_t kBlocksMax = INT32_MAX;
  if (args.num_rows == 0) return cudaSuccess;
  if (args.vocab_real <= 0 || args.vocab_real > args.vocab || args.num_rows < 0 ||
      args.num_rows * sampling::tiles_of(args.vocab) > kBlocksMax) {
    return cudaErrorInvalidValue;
  }
  sampling::Plan plan;
  plan.args = args;
  sampling::take_parts(scratch, args.num_rows, args.vocab, plan);
  if ((features & kFeatureTruncate) == 0) plan.group_maxima = nullptr;
  if ((features & kFeaturePenalties) == 0) plan.penalised = nullptr;
  plan.tiles = sampling::tiles_of(args.vocab_real);
  plan.masses_per_weight = static_cast<float>(uint64_t{1} << sampling::mass_bits(args.vocab_real));
  plan.aligned = sampling::are_rows_aligned(args.logits, args.vocab);
  return sampling::launch(plan, features, stream);
}

size_t sampling_scratch_bytes(int64_t rows_max, int64_t vocab) {
  sampling::Plan plan;
  return sampling::take_parts(nullptr, rows_max, vocab, plan).bytes() + sampling::kPartAlignment;
}

cudaError_t token_logprobs(const LogprobArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0) return cudaSuccess;
  if (args.vocab_real <= 0 || args.vocab_real > args.vocab || args.num_rows < 0 || args.num_rows > INT32_MAX) {
    return cudaErrorInvalidValue;
  }
  const sampling::LogprobRows rows{args.logits,
                                   args.vocab,
                                   static_cast<int32_t>(args.vocab_real),
                                   sampling::tiles_of(args.vocab_real),
                                   sampling::are_rows_aligned(args.logits, args.vocab),
                                   args.targets,
                                   args.out};
  const LaunchShape shape = sampling::shape_of(args.num_rows, sampling::kLogprobWarps);
  return launch_dependent<sampling::logprob_kernel>(shape, stream, rows);
}

}  // namespace optserve::kernels

// Sampling takes two to four kernels. First, scan passes over all tiles of all rows; it edits the logits of rows that
// ask for it and stores for each tile its largest logit, its sum of exponentials and its best id. If some row draws,
// weigh then sums the masses of the tiles. After that, one warp per row draws, or one block per row truncates and
// draws. Finally, if some row wants its best ids, one warp per row finds them.
#include "kernels/dependent_launch.cuh"
#include "kernels/sampling.h"
#include "kernels/sampling/best.cuh"
#include "kernels/sampling/scan.cuh"
#include "kernels/sampling/typical.cuh"

namespace optserve::kernels {
namespace sampling {
namespace {

constexpr int kWeighWarps = 4, kFinishWarps = 4, kLogprobWarps = 8;

// ---- weigh

// The masses of the tiles of rows that draw from all ids or go straight to top-p. One warp per tile.
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

// Called by one lane of one warp per row.
__device__ void store(const Plan& plan, const SamplingRow& row, int64_t index, int32_t id, const Summary& summary) {
  const float logprob = id >= 0 ? log_softmax(plan.args.logits[index * plan.args.vocab + id], summary) : 0.0f;
  plan.args.ids[index] = id;
  plan.args.logprobs[index] = logprob;
  plan.args.history[row.slot * plan.args.history_stride + row.position] = id >= 0 ? id : 0;
}

__device__ inline void store_padding(const Plan& plan, int64_t index) {
  plan.args.ids[index] = -1;
  plan.args.logprobs[index] = 0;
}

__device__ inline double uniform_of(const SamplingRow& row) {
  return sampling::uniform_at(row.seed, static_cast<uint64_t>(row.position));
}

// One warp per row; no row truncates.
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
    if (id >= 0 && !is_greedy(row)) {
      const RowView view = view_of(plan, row, index, summary);
      id = draw(view, no_cut().logit, MassOfKept{view, no_cut()}, uniform_of(row));
    }
  }
  if (lane_id() == 0) store(plan, row, index, id, summary);
}

// Truncates and draws. Called by all threads of the block; only the first warp gets the id.
template <bool kTypical>
__device__ int32_t truncate_and_draw(const Plan& plan, const SamplingRow& row, Shared& shared) {
  const RowView& view = shared.row;
  const int32_t top_k = effective_top_k(plan, row);
  const float top_p = decayed_top_p(plan, row, shared);
  Cut cut = no_cut();
  if (top_k > 0 || top_p < 1.0f || row.min_p > 0.0f) cut = truncate(view, top_k, top_p, shared);
  if constexpr (kTypical) {
    if (row.typical_p < 1.0f) {
      const MassOfTypical typical = choose_typical(view, cut, row.typical_p, shared);
      return warp_id() == 0 ? draw(view, cut.logit, typical, uniform_of(row)) : -1;
    }
  }
  const MassOfKept kept{view, cut};
  if (top_k > 0 || top_p < 1.0f) measure_tiles(view, cut.logit, kept);
  return warp_id() == 0 ? draw(view, cut.logit, kept, uniform_of(row)) : -1;
}

// One block per row. All warps merge the same summaries, so that they take the same branches.
template <bool kTypical>
__global__ void __launch_bounds__(kCutThreads, kTypical ? 1 : 2) truncate_kernel(const Plan plan) {
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
    id = truncate_and_draw<kTypical>(plan, row, shared);
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
  int32_t best;
  int32_t* best_ids;
  float* best_logprobs;
};

// One block per row. With kBest, shared memory holds [tiles]: the largest logit of each tile.
template <bool kBest>
__global__ void __launch_bounds__(kLogprobWarps* kLanes) logprob_kernel(const LogprobRows args) {
  extern __shared__ float largest_of_tile[];
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
    if constexpr (kBest) {
      const float of_lanes = warp_max(tile_largest);
      if (lane_id() == 0) largest_of_tile[tile] = of_lanes;
    }
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
  if (warp_id() != 0) return;
  for (int warp = 1; warp < kLogprobWarps; ++warp) add_exponentials(largest, sum, largest_of[warp], sum_of[warp]);
  const auto logprob_of = [largest, log_sum = logf(sum)](float logit) {
    return static_cast<float>(static_cast<double>(logit) - largest - log_sum);
  };
  if (lane_id() == 0) args.out[blockIdx.x] = broken ? NAN : logprob_of(logits[target]);
  if constexpr (kBest) {
    const RankedRow ranked{logits, args.vocab_real, broken ? 0 : args.tiles, args.aligned, {-1, -1}};
    store_best(ranked, largest_of_tile,
               {args.best_ids + int64_t{blockIdx.x} * kBestIdsMax,
                args.best_logprobs + int64_t{blockIdx.x} * kBestIdsMax, args.best},
               logprob_of);
  }
}

// ---- host

int64_t divide_up(int64_t count, int64_t unit) { return (count + unit - 1) / unit; }

int tiles_of(int64_t ids) { return static_cast<int>(divide_up(ids, kTile)); }

bool are_rows_aligned(const float* logits, int64_t vocab) {
  return vocab % 4 == 0 && reinterpret_cast<uintptr_t>(logits) % sizeof(float4) == 0;
}

constexpr size_t kPartAlignment = 256;

// Hands out parts of the scratch; with a null scratch it only adds up their sizes.
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
  plan.edited_stride = (vocab + 3) / 4 * 4;
  plan.edited = parts.take<float>(num_rows * plan.edited_stride);
  return parts;
}

// The launch shape for `blocks` blocks of `warps` warps.
LaunchShape shape_of(int64_t blocks, int warps) {
  return {static_cast<unsigned>(blocks), static_cast<unsigned>(warps * kLanes)};
}

cudaError_t launch_scan(const Plan& plan, uint32_t features, cudaStream_t stream) {
  const LaunchShape shape = shape_of(plan.args.num_rows * divide_up(plan.tiles, kScanWarps), kScanWarps);
  if ((features & SampleFeature::kSampleRules) != 0) {
    return launch_dependent<scan_kernel<Edits::kRules>>(shape, stream, plan);
  }
  if (plan.edited != nullptr) return launch_dependent<scan_kernel<Edits::kPenalties>>(shape, stream, plan);
  return launch_dependent<scan_kernel<Edits::kNone>>(shape, stream, plan);
}

cudaError_t launch_draw(const Plan& plan, uint32_t features, cudaStream_t stream) {
  const int64_t rows = plan.args.num_rows, chunks = divide_up(plan.tiles, kWeighWarps);
  const LaunchShape finish = shape_of(divide_up(rows, kFinishWarps), kFinishWarps);
  if ((features & (SampleFeature::kSampleDraw | SampleFeature::kSampleTruncate | SampleFeature::kSampleTypical)) == 0) {
    return launch_dependent<finish_kernel<false>>(finish, stream, plan);
  }
  const cudaError_t error = launch_dependent<weigh_kernel>(shape_of(rows * chunks, kWeighWarps), stream, plan);
  if (error != cudaSuccess) return error;
  if (plan.group_maxima == nullptr) return launch_dependent<finish_kernel<true>>(finish, stream, plan);
  const LaunchShape truncate = shape_of(rows, kCutWarps);
  if ((features & SampleFeature::kSampleTypical) == 0) {
    return launch_dependent<truncate_kernel<false>>(truncate, stream, plan);
  }
  return launch_dependent<truncate_kernel<true>>(truncate, stream, plan);
}

cudaError_t launch(const Plan& plan, uint32_t features, cudaStream_t stream) {
  cudaError_t error = launch_scan(plan, features, stream);
  if (error == cudaSuccess) error = launch_draw(plan, features, stream);
  if (error != cudaSuccess || (features & SampleFeature::kSampleLogprobs) == 0) return error;
  LaunchShape shape = shape_of(divide_up(plan.args.num_rows, kBestWarps), kBestWarps);
  shape.shared_bytes = static_cast<size_t>(kBestWarps * plan.tiles) * sizeof(float);
  return launch_dependent<best_kernel>(shape, stream, plan);
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
  if ((features & (SampleFeature::kSampleTruncate | SampleFeature::kSampleTypical)) == 0) {
    plan.group_maxima = nullptr;
  }
  if ((features & (SampleFeature::kSamplePenalties | SampleFeature::kSampleRules)) == 0) {
    plan.edited = nullptr;
  }
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
  if (args.vocab_real <= 0 || args.vocab_real > args.vocab || args.num_rows < 0 || args.num_rows > INT32_MAX ||
      args.best < 0 || args.best > kBestIdsMax) {
    return cudaErrorInvalidValue;
  }
  const sampling::LogprobRows rows{args.logits,
                                   args.vocab,
                                   static_cast<int32_t>(args.vocab_real),
                                   sampling::tiles_of(args.vocab_real),
                                   sampling::are_rows_aligned(args.logits, args.vocab),
                                   args.targets,
                                   args.out,
                                   args.best,
                                   args.best_ids,
                                   args.best_logprobs};
  LaunchShape shape = sampling::shape_of(args.num_rows, sampling::kLogprobWarps);
  if (args.best == 0) return launch_dependent<sampling::logprob_kernel<false>>(shape, stream, rows);
  shape.shared_bytes = static_cast<size_t>(rows.tiles) * sizeof(float);
  return launch_dependent<sampling::logprob_kernel<true>>(shape, stream, rows);
}

}  // namespace optserve::kernels

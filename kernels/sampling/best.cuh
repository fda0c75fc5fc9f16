// The best ids of a row: of all ids by their unedited logits, or of the ids that may be drawn by their edited logits.
// One warp per row walks the tiles in order of their largest logits.
#pragma once

#include "kernels/sampling/row.cuh"

namespace optserve::kernels::sampling {

constexpr int kBestWarps = 4;

struct Ranked {
  float logit;
  int32_t id;
};

// What the ids of a row are ranked by.
struct RankedRow {
  const float* values;
  int32_t vocab_real;
  int tiles;
  bool aligned;
  Masks masks;
};
__device__ inline RankedRow ranked_row(const Plan& plan, const SamplingRow& row, int64_t index) {
  const float* logits = plan.args.logits + index * plan.args.vocab;
  const auto vocab_real = static_cast<int32_t>(plan.args.vocab_real);
  if (!ranks_allowed(row)) return {logits, vocab_real, plan.tiles, plan.aligned, {-1, -1}};
  if (!is_edited(row)) return {logits, vocab_real, plan.tiles, plan.aligned, masks_of(plan, row)};
  return {plan.edited + index * plan.edited_stride, vocab_real, plan.tiles, true, masks_of(plan, row)};
}

// The best id of a tile that ranks after `last`. `next` becomes the largest logit of the ids that rank after it, or
// -infinity if there are none. Called by one warp.
__device__ inline Ranked best_after(const RankedRow& row, int tile, const Ranked& last, float& next) {
  float v[kSteps][4];
  load_tile(row.values, row.vocab_real, row.aligned, tile, kAllGroups, v);
  Ranked best{-INFINITY, INT32_MAX};
#pragma unroll
  for (int i = 0; i < kSteps * 4; ++i) {
    float& logit = v[i / 4][i % 4];
    const int32_t id = id_at(tile, i / 4, i % 4);
    if (row.masks.hide(id) || logit > last.logit || (logit == last.logit && id <= last.id)) logit = -INFINITY;
    if (logit > best.logit) best = {logit, id};
  }
  warp_best(best.logit, best.id);
  next = -INFINITY;
#pragma unroll
  for (int i = 0; i < kSteps * 4; ++i) {
    if (id_at(tile, i / 4, i % 4) != best.id) next = fmaxf(next, v[i / 4][i % 4]);
  }
  next = warp_max(next);
  return best;
}

// Where the best ids of a row go.
struct BestColumns {
  int32_t* ids;
  float* logprobs;
  int wanted;
};

// Called by one warp. `left`, in shared memory, has the largest logit of each tile, or -infinity to leave the tile out;
// it is changed. Lane 0 calls `logprob_of` for the log-probability of a logit.
template <class LogprobOf>
__device__ void store_best(const RankedRow& ranked, float* left, const BestColumns& out, const LogprobOf& logprob_of) {
  Ranked last{INFINITY, -1};
  for (int column = 0; column < out.wanted; ++column) {
    __syncwarp();
    float largest = -INFINITY;
    int32_t tile = INT32_MAX;
    for (int i = lane_id(); i < ranked.tiles; i += kLanes) {
      if (left[i] > largest) {
        largest = left[i];
        tile = i;
      }
    }
    warp_best(largest, tile);
    const bool found = largest > -INFINITY;
    if (found) {
      float next;
      last = best_after(ranked, tile, last, next);
      if (lane_id() == tile % kLanes) left[tile] = next;
    }
    if (lane_id() != 0) continue;
    out.ids[column] = found ? last.id : -1;
    out.logprobs[column] = found ? logprob_of(last.logit) : 0.0f;
  }
}

// Shared memory: [kBestWarps][tiles], the largest logit of each tile that is not among the best yet.
__global__ void __launch_bounds__(kBestWarps* kLanes) best_kernel(const Plan plan) {
  extern __shared__ float largest_left[];
  allow_next();
  wait_for_previous();
  const int64_t index = int64_t{blockIdx.x} * kBestWarps + warp_id();
  if (index >= plan.args.num_rows) return;
  const SamplingRow& row = plan.args.rows[index];
  const int wanted = min(row.logprobs, kBestIdsMax);
  if (row.slot < 0 || wanted <= 0) return;
  const Summary summary = merge_summaries(plan, index);
  const bool finite = !isnan(summary.sum);
  float* left = largest_left + warp_id() * plan.tiles;
  for (int tile = lane_id(); tile < plan.tiles; tile += kLanes) {
    const Summary& of_tile = plan.summaries[index * plan.tiles + tile];
    left[tile] = !finite ? -INFINITY : ranks_allowed(row) ? of_tile.best : of_tile.largest;
  }
  store_best(ranked_row(plan, row, index), left,
             {plan.args.best_ids + index * kBestIdsMax, plan.args.best_logprobs + index * kBestIdsMax, wanted},
             [&](float logit) { return log_softmax(logit, summary); });
}

}  // namespace optserve::kernels::sampling

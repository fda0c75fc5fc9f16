// The best ids of a row by the logits as they came: one warp a row walks the tiles in order of their largest logits.
#pragma once

#include "kernels/sampling_row.cuh"

namespace optserve::kernels::sampling {

constexpr int kBestWarps = 4;

struct Ranked {
  float logit;
  int32_t id;
};

// The best id of a tile that comes after `last`; `next`: the largest logit of those after it, -infinity if none. One
// warp.
__device__ inline Ranked best_after(const Plan& plan, int64_t index, int tile, const Ranked& last, float& next) {
  float v[kSteps][4];
  load_tile(plan.args.logits + index * plan.args.vocab, static_cast<int32_t>(plan.args.vocab_real), plan.aligned, tile,
            kAllGroups, v);
  Ranked best{-INFINITY, INT32_MAX};
#pragma unroll
  for (int i = 0; i < kSteps * 4; ++i) {
    float& logit = v[i / 4][i % 4];
    const int32_t id = id_at(tile, i / 4, i % 4);
    if (logit > last.logit || (logit == last.logit && id <= last.id)) logit = -INFINITY;
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
    left[tile] = finite ? plan.summaries[index * plan.tiles + tile].largest : -INFINITY;
  }
  Ranked last{INFINITY, -1};
  for (int column = 0; column < wanted; ++column) {
    __syncwarp();
    float largest = -INFINITY;
    int32_t tile = INT32_MAX;
    for (int i = lane_id(); i < plan.tiles; i += kLanes) {
      if (left[i] > largest) {
        largest = left[i];
        tile = i;
      }
    }
    warp_best(largest, tile);
    const bool found = largest > -INFINITY;
    if (found) {
      float next;
      last = best_after(plan, index, tile, last, next);
      if (lane_id() == tile % kLanes) left[tile] = next;
    }
    if (lane_id() != 0) continue;
    plan.args.best_ids[index * kBestIdsMax + column] = found ? last.id : -1;
    plan.args.best_logprobs[index * kBestIdsMax + column] = found ? log_softmax(last.logit, summary) : 0.0f;
  }
}

}  // namespace optserve::kernels::sampling

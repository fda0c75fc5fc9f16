// The first pass over all logits: edits them (bias, temperature where it comes first, penalties, masks) and stores for
// each tile what the later steps need.
#pragma once

#include "kernels/sampling/row.cuh"

namespace optserve::kernels::sampling {

constexpr int kScanWarps = 8;
constexpr int kScanThreads = kScanWarps * kLanes;
constexpr int kScanIds = kScanWarps * kTile;  // of one block

// Which edits a scan can make; a row uses those that it needs.
enum class Edits { kNone, kPenalties, kRules };

template <Edits kEdits>
struct alignas(16) EditTables {
  uint32_t uses[kEdits == Edits::kNone ? 1 : kScanIds];          // in the bits of penalise()
  float bias[kEdits == Edits::kRules ? kScanIds : 1];            // added
  uint32_t hidden[kEdits == Edits::kRules ? kScanIds / 32 : 1];  // a bit for each id that may not be drawn
};

// The edits of one row, for the ids from the first one of a block or tile on. A null table or a divisor of 0 means no
// such edit.
struct RowEdits {
  const uint32_t* uses = nullptr;
  const float* bias = nullptr;
  const uint32_t* hidden = nullptr;
  float divisor = 0;
  Penalties penalties = {};
  bool any = false;

  __device__ RowEdits of_tile(int tile) const {
    RowEdits moved = *this;
    if (uses != nullptr) moved.uses += tile * kTile;
    if (bias != nullptr) moved.bias += tile * kTile;
    if (hidden != nullptr) moved.hidden += tile * kTile / 32;
    return moved;
  }
  __device__ float apply(float logit, int at) const {
    if (bias != nullptr) logit = __fadd_rn(logit, bias[at]);
    if (divisor != 0.0f) logit = hold_finite(__fdiv_rn(logit, divisor));
    if (uses != nullptr) logit = penalise(logit, uses[at], penalties);
    return hidden != nullptr && (hidden[at / 32] >> (at % 32) & 1) != 0 ? -INFINITY : logit;
  }
};

// ---- tables of a block

__device__ inline void count_uses(const Plan& plan, const SamplingRow& row, int32_t first, uint32_t* uses) {
  const int32_t* known = plan.args.history + row.slot * plan.args.history_stride;
  for (int i = static_cast<int>(threadIdx.x); i < row.position; i += kScanThreads) {
    const int32_t id = known[i];
    if (id < first || id >= first + kScanIds || id >= plan.args.vocab_real) continue;
    atomicAdd(&uses[id - first], i < row.prompt_tokens ? kInPrompt : kGenerated);
  }
}

__device__ inline const int32_t* rules_of(const Plan& plan, const SamplingRow& row) {
  return plan.args.rules + row.slot * plan.args.rules_stride;
}

// Index of the first of `count` sorted entries whose id is at least `id`. Called by all lanes of a warp; in each round
// every lane looks at the end of one of 32 pieces, so that few loads wait for each other.
__device__ inline int lower_bound(const int32_t* entries, int count, int32_t id) {
  int begin = 0;
  while (count > 0) {
    const int step = (count + kLanes - 1) / kLanes, piece = lane_id() * step;
    const int last = min(piece + step, count) - 1;
    const bool below = piece < count && entries[(begin + last) * kRulesEntry] < id;
    const int passed = min(__popc(__ballot_sync(kAllLanes, below)) * step, count);
    begin += passed;
    count = step == 1 ? 0 : min(step, count - passed);
  }
  return begin;
}

// Applies biases, and hides ids or, if only allowed ids may be drawn, shows them again. Called by all threads.
__device__ inline void apply_entries(const int32_t* rules, bool allow_end, int32_t first,
                                     EditTables<Edits::kRules>& tables) {
  const int32_t* entries = rules + kRulesHeader;
  const int count = rules[0];
  const bool only_allowed = rules[2] != 0;
  for (int i = lower_bound(entries, count, first) + static_cast<int>(threadIdx.x); i < count; i += kScanThreads) {
    const int32_t at = entries[i * kRulesEntry] - first, bits = entries[i * kRulesEntry + 2];
    if (at >= kScanIds) break;
    tables.bias[at] = __int_as_float(entries[i * kRulesEntry + 1]);
    const bool hide =
        (bits & kBannedId) != 0 || (only_allowed && (bits & kAllowedId) == 0) || (!allow_end && (bits & kStopId) != 0);
    const uint32_t bit = 1u << (at % 32);
    if (hide) {
      atomicOr(&tables.hidden[at / 32], bit);
    } else if (only_allowed) {
      atomicAnd(&tables.hidden[at / 32], ~bit);
    }
  }
}

// Hides the ids that would complete a bad word of several ids. Called by all threads.
__device__ inline void hide_bad_words(const Plan& plan, const SamplingRow& row, int32_t first,
                                      EditTables<Edits::kRules>& tables) {
  const int32_t* rules = rules_of(plan, row);
  const int32_t* words = rules + kRulesHeader + rules[0] * kRulesEntry + rules[3];
  const int32_t* end = plan.args.history + row.slot * plan.args.history_stride + row.position;
  const int count = rules[1];
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kScanThreads) {
    const int32_t* word = rules + words[2 * i];
    const int prefix = words[2 * i + 1] - 1;
    const int32_t at = word[prefix] - first;
    if (at < 0 || at >= kScanIds || prefix > row.position) continue;
    int same = 0;
    while (same < prefix && word[same] == end[same - prefix]) ++same;
    if (same == prefix) atomicOr(&tables.hidden[at / 32], 1u << (at % 32));
  }
}

// Called by all threads of a block; ends with a barrier.
__device__ inline RowEdits rule_edits(const Plan& plan, const SamplingRow& row, int32_t first,
                                      EditTables<Edits::kRules>& tables) {
  const int32_t* rules = rules_of(plan, row);
  const uint32_t hidden = rules[2] != 0 ? UINT32_MAX : 0;
  for (int i = static_cast<int>(threadIdx.x); i < kScanIds; i += kScanThreads) tables.bias[i] = 0;
  for (int i = static_cast<int>(threadIdx.x); i < kScanIds / 32; i += kScanThreads) tables.hidden[i] = hidden;
  __syncthreads();
  apply_entries(rules, allows_end(row), first, tables);
  __syncthreads();  // an entry may show an id that a bad word hides
  hide_bad_words(plan, row, first, tables);
  __syncthreads();
  RowEdits edits;
  edits.bias = tables.bias;
  edits.hidden = tables.hidden;
  return edits;
}

template <Edits kEdits>
__device__ RowEdits edits_of(const Plan& plan, const SamplingRow& row, int32_t first, EditTables<kEdits>& tables) {
  RowEdits edits;
  if constexpr (kEdits != Edits::kNone) {
    if (!is_edited(row)) return edits;
    if constexpr (kEdits == Edits::kRules) {
      if (has_rules(row)) edits = rule_edits(plan, row, first, tables);
    }
    edits.any = true;
    edits.divisor = first_divisor(row);
    if (has_penalties(row)) {
      for (int i = static_cast<int>(threadIdx.x); i < kScanIds; i += kScanThreads) tables.uses[i] = 0;
      __syncthreads();
      count_uses(plan, row, first, tables.uses);
      __syncthreads();
      edits.uses = tables.uses;
      edits.penalties = penalties_of(row);
    }
  }
  return edits;
}

// ---- tiles

// Leaves in `four` what may be drawn of the four ids from `id` on, and keeps the lane's best.
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

__device__ inline void store_group_maximum(const Plan& plan, int64_t tile_index, int32_t id, const float (&four)[4]) {
  float group = fmaxf(fmaxf(four[0], four[1]), fmaxf(four[2], four[3]));
  for (int distance = 1; distance < kGroup / 4; distance *= 2) {
    group = fmaxf(group, __shfl_xor_sync(kAllLanes, group, distance));
  }
  if (lane_id() % (kGroup / 4) == 0) plan.group_maxima[tile_index * kTileGroups + id % kTile / kGroup] = group;
}

// Called by one warp. `edits` are those of this tile's ids.
template <bool kEdited>
__device__ void scan_tile(const Plan& plan, const SamplingRow& row, int64_t index, int tile, const RowEdits& edits) {
  const auto vocab_real = static_cast<int32_t>(plan.args.vocab_real);
  const Masks masks = masks_of(plan, row);
  const bool copy = kEdited && (!is_greedy(row) || ranks_allowed(row));
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
      const bool real = id + i < vocab_real;
      summary.largest = fmaxf(summary.largest, v[step][i]);
      broken |= real && !(fabsf(v[step][i]) <= FLT_MAX);
      four[i] = kEdited && real ? edits.apply(v[step][i], id + i - tile * kTile) : v[step][i];
    }
    choose(masks, id, four, summary.best, summary.best_id);
    if (copy && id < vocab_real) {
      float* edited = plan.edited + index * plan.edited_stride + id;
      *reinterpret_cast<float4*>(edited) = make_float4(four[0], four[1], four[2], four[3]);
    }
    if (plan.group_maxima != nullptr) store_group_maximum(plan, index * plan.tiles + tile, id, four);
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

template <Edits kEdits>
__global__ void __launch_bounds__(kScanThreads) scan_kernel(const Plan plan) {
  __shared__ EditTables<kEdits> tables;
  allow_next();
  wait_for_previous();
  const int chunks = (plan.tiles + kScanWarps - 1) / kScanWarps;
  const int index = static_cast<int>(blockIdx.x) / chunks, chunk = static_cast<int>(blockIdx.x) % chunks;
  const SamplingRow row = plan.args.rows[index];
  if (row.slot < 0) return;
  const RowEdits edits = edits_of<kEdits>(plan, row, chunk * kScanIds, tables);
  const int tile = chunk * kScanWarps + warp_id();
  if (tile >= plan.tiles) return;
  if constexpr (kEdits != Edits::kNone) {
    if (edits.any) {
      scan_tile<true>(plan, row, index, tile, edits.of_tile(warp_id()));
      return;
    }
  }
  scan_tile<false>(plan, row, index, tile, {});
}

}  // namespace optserve::kernels::sampling

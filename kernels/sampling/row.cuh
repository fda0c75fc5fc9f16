// One row of logits as the kernels of sampling.cu walk it: in tiles of 512 ids, one warp per tile, whatever the number
// of rows is, so that results do not depend on it.
#pragma once

#include "kernels/sampling/chain.cuh"

namespace optserve::kernels::sampling {

constexpr int kLanes = 32;
constexpr uint32_t kAllLanes = 0xffffffffu;
constexpr int kTile = 512;
constexpr int kSteps = kTile / kLanes / 4;  // a lane holds four neighbouring ids in each step
constexpr int kGroup = 32;                  // ids that share one maximum: eight lanes in one step
constexpr int kTileGroups = kTile / kGroup;
static_assert(kTileGroups < kLanes);
constexpr uint32_t kAllGroups = (1u << kTileGroups) - 1;

// What is known of a tile or, after merging, of a row. The sum is NaN if a logit is not finite.
struct alignas(16) Summary {
  float largest;    // of the unedited logits
  float sum;        // of exp(logit - largest)
  float best;       // the largest that may be drawn, after edits; -infinity if none
  int32_t best_id;  // the lowest such id
};

// A call and the parts of its scratch.
struct Plan {
  SamplingArgs args;
  Summary* summaries = nullptr;     // [num_rows, tiles]
  uint64_t* tile_masses = nullptr;  // [num_rows, tiles]
  float* group_maxima = nullptr;    // [num_rows, tiles * kTileGroups], after edits and masks; null: not wanted
  float* edited = nullptr;  // [num_rows, edited_stride], edited rows that draw or rank what may be drawn; null: none
  int64_t edited_stride = 0;
  int tiles = 0;
  float masses_per_weight = 0;  // 2^mass_bits
  bool aligned = false;         // rows of logits start at multiples of 16 bytes
};

// Ids that may not be drawn, whatever the row's rules; -1 for none.
struct Masks {
  int32_t pad, eos;
  __device__ bool hide(int32_t id) const { return id == pad || id == eos; }
};
__device__ inline Masks masks_of(const Plan& plan, const SamplingRow& row) {
  return {plan.args.pad, allows_end(row) ? -1 : plan.args.eos};
}

// A row that draws and is not greedy.
struct RowView {
  const float* values;  // logits after edits
  const float* group_maxima;
  uint64_t* tile_masses;
  int32_t vocab_real;
  int tiles;
  Masks masks;
  bool aligned;
  float largest;  // of those that may be drawn
  float scale;
  float masses_per_weight;
  float min_weight;  // min-p: ids that weigh less have no mass
  bool trims;        // only the mass below p counts of the id that crosses top-p

  // Log of the weight, at most 0.
  __device__ float exponent(float logit) const { return __fmul_rn(__fsub_rn(logit, largest), scale); }
  __device__ uint64_t mass(float logit) const {
    const float weight = exponential(exponent(logit));
    return weight >= min_weight ? __float2ull_rn(__fmul_rn(weight, masses_per_weight)) : 0;
  }
};

// Where truncation ends: the last id that stays, in order of logit and, among equals, of id.
struct Cut {
  float logit;
  int32_t id;
  uint64_t last_mass;  // the last id has at most this mass
  __device__ bool keeps(float l, int32_t i) const { return l > logit || (l == logit && i <= id); }
};
__device__ inline Cut no_cut() { return {-INFINITY, INT32_MAX, UINT64_MAX}; }

__device__ inline int lane_id() { return static_cast<int>(threadIdx.x % kLanes); }
__device__ inline int warp_id() { return static_cast<int>(threadIdx.x / kLanes); }

template <class T>
__device__ T warp_sum(T value) {
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}

__device__ inline float warp_max(float value) {
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}

__device__ inline uint64_t warp_running_sum(uint64_t value) {
  for (int distance = 1; distance < kLanes; distance *= 2) {
    const uint64_t other = __shfl_up_sync(kAllLanes, value, distance);
    if (lane_id() >= distance) value += other;
  }
  return value;
}

// The better of all lanes' candidates, in all lanes.
__device__ inline void warp_best(float& best, int32_t& best_id) {
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, best, distance);
    const int32_t other_id = __shfl_xor_sync(kAllLanes, best_id, distance);
    if (other > best || (other == best && other_id < best_id)) {
      best = other;
      best_id = other_id;
    }
  }
}

// Id of v[step][i] in this lane.
__device__ inline int32_t id_at(int tile, int step, int i) {
  return tile * kTile + (step * kLanes + lane_id()) * 4 + i;
}

__device__ inline void load_four(const float* values, float (&v)[4]) {
  const float4 four = *reinterpret_cast<const float4*>(values);
  v[0] = four.x;
  v[1] = four.y;
  v[2] = four.z;
  v[3] = four.w;
}

// v = the logits of a tile; -infinity outside the row and in groups whose bit is not set.
__device__ inline void load_tile(const float* values, int32_t vocab_real, bool aligned, int tile, uint32_t groups,
                                 float (&v)[kSteps][4]) {
  if (aligned && groups == kAllGroups && (tile + 1) * kTile <= vocab_real) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) load_four(values + id_at(tile, step, 0), v[step]);
    return;
  }
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const int32_t id = id_at(tile, step, 0);
    const bool live = (groups >> (step * (kLanes / 8) + lane_id() / 8) & 1) != 0;
    if (live && aligned && id + 4 <= vocab_real) {
      load_four(values + id, v[step]);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) v[step][i] = live && id + i < vocab_real ? values[id + i] : -INFINITY;
    }
  }
}

// Bits of the groups of a tile that have a logit of at least `floor`.
__device__ inline uint32_t live_groups(const RowView& row, int tile, float floor) {
  if (row.group_maxima == nullptr) return kAllGroups;
  const float* maxima = row.group_maxima + tile * kTileGroups;
  return __ballot_sync(kAllLanes, lane_id() < kTileGroups && maxima[lane_id()] >= floor);
}

// load_tile() for a row that draws, with the masks applied.
__device__ inline void load_drawable(const RowView& row, int tile, uint32_t groups, float (&v)[kSteps][4]) {
  load_tile(row.values, row.vocab_real, row.aligned, tile, groups, v);
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (row.masks.hide(id_at(tile, step, i))) v[step][i] = -INFINITY;
    }
  }
}

// Calls body(logit, id) for all ids of a tile, in all lanes together; the logit is -infinity if the group's bit is not
// set. The loop over steps is not unrolled, since `body` may be long; instead, each step's values move into the first
// registers.
template <class Body>
__device__ void for_each_drawable(const RowView& row, int tile, uint32_t groups, const Body& body) {
  if (groups == 0) return;
  float v[kSteps][4];
  load_drawable(row, tile, groups, v);
#pragma unroll 1
  for (int step = 0; step < kSteps; ++step) {
#pragma unroll
    for (int i = 0; i < 4; ++i) body(v[0][i], id_at(tile, step, i));
#pragma unroll
    for (int next = 1; next < kSteps; ++next) {
#pragma unroll
      for (int i = 0; i < 4; ++i) v[next - 1][i] = v[next][i];
    }
  }
}

// Sums of one tile and of all tiles of a row, in all lanes. `measure` maps a logit and its id to a number; ids outside
// of `groups` count nothing.
template <class Measure>
__device__ uint64_t tile_sum(const RowView& row, int tile, uint32_t groups, const Measure& measure) {
  if (groups == 0) return 0;
  float v[kSteps][4];
  load_drawable(row, tile, groups, v);
  uint64_t sum = 0;
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
#pragma unroll
    for (int i = 0; i < 4; ++i) sum += measure(v[step][i], id_at(tile, step, i));
  }
  return warp_sum(sum);
}

__device__ inline uint64_t sum_of_tiles(const RowView& row) {
  uint64_t sum = 0;
  for (int tile = lane_id(); tile < row.tiles; tile += kLanes) sum += row.tile_masses[tile];
  return warp_sum(sum);
}

// The first id, in order of ids, with which the running sum of `measure` reaches `target`: at least 1, at most the sum
// of row.tile_masses, which hold this measure. Called by one warp; all lanes get the result, which is -1 if there is
// none.
template <class Measure>
__device__ int32_t locate(const RowView& row, float floor, const Measure& measure, uint64_t target) {
  uint64_t before = 0;
  int tile = -1;
  for (int first = 0; first < row.tiles && tile < 0; first += kLanes) {
    const uint64_t sum = first + lane_id() < row.tiles ? row.tile_masses[first + lane_id()] : 0;
    const uint64_t running = before + warp_running_sum(sum);
    const uint32_t reached = __ballot_sync(kAllLanes, running >= target);
    const int lane = reached != 0 ? __ffs(static_cast<int>(reached)) - 1 : kLanes - 1;
    before = __shfl_sync(kAllLanes, reached != 0 ? running - sum : running, lane);
    if (reached != 0) tile = first + lane;
  }
  if (tile < 0) return -1;

  float v[kSteps][4], hit[4] = {};
  load_drawable(row, tile, live_groups(row, tile, floor), v);
  int hit_step = -1;
  uint64_t running = 0;
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    uint64_t sum = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) sum += measure(v[step][i], id_at(tile, step, i));
    const uint64_t sums = warp_running_sum(sum), all = __shfl_sync(kAllLanes, sums, kLanes - 1);
    if (hit_step >= 0) continue;
    if (before + all < target) {
      before += all;
      continue;
    }
    hit_step = step;
    running = before + sums - sum;
#pragma unroll
    for (int i = 0; i < 4; ++i) hit[i] = v[step][i];
  }
  int32_t id = INT32_MAX;
  for (int i = 0; i < 4; ++i) {
    running += measure(hit[i], id_at(tile, hit_step, i));
    if (id == INT32_MAX && running >= target) id = id_at(tile, hit_step, i);
  }
  // The lowest of the ids at which the sum has been reached.
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
    id = min(id, __shfl_xor_sync(kAllLanes, id, distance));
  }
  return hit_step >= 0 ? id : -1;
}

struct MassOfKept {
  const RowView& row;
  Cut cut;
  __device__ uint64_t operator()(float logit, int32_t id) const {
    if (!cut.keeps(logit, id)) return 0;
    const uint64_t mass = row.mass(logit);
    return id == cut.id && cut.last_mass < mass ? cut.last_mass : mass;
  }
};

// Draws by `measure`, which is 0 below `floor`; row.tile_masses holds its sums. Called by one warp.
template <class Measure>
__device__ int32_t draw(const RowView& row, float floor, const Measure& measure, double uniform) {
  return locate(row, floor, measure, target_mass(uniform, sum_of_tiles(row)));
}

// Called by a whole warp; the result is the same in all lanes of all warps.
__device__ inline Summary merge_summaries(const Plan& plan, int64_t index) {
  const Summary* tiles = plan.summaries + index * plan.tiles;
  Summary merged{-FLT_MAX, 0, -INFINITY, INT32_MAX};
  for (int tile = lane_id(); tile < plan.tiles; tile += kLanes) {
    merged.largest = fmaxf(merged.largest, tiles[tile].largest);
    if (tiles[tile].best > merged.best) {
      merged.best = tiles[tile].best;
      merged.best_id = tiles[tile].best_id;
    }
  }
  merged.largest = warp_max(merged.largest);
  warp_best(merged.best, merged.best_id);
  for (int tile = lane_id(); tile < plan.tiles; tile += kLanes) {
    merged.sum += tiles[tile].sum * __expf(tiles[tile].largest - merged.largest);
  }
  merged.sum = warp_sum(merged.sum);
  return merged;
}

__device__ inline bool may_draw(const Summary& summary) { return !isnan(summary.sum) && summary.best > -INFINITY; }

__device__ inline RowView view_of(const Plan& plan, const SamplingRow& row, int64_t index, const Summary& summary) {
  const bool copied = plan.edited != nullptr && is_edited(row);
  const float divisor = first_divisor(row);
  RowView view;
  view.values = copied ? plan.edited + index * plan.edited_stride : plan.args.logits + index * plan.args.vocab;
  view.group_maxima = plan.group_maxima != nullptr ? plan.group_maxima + index * plan.tiles * kTileGroups : nullptr;
  view.tile_masses = plan.tile_masses + index * plan.tiles;
  view.vocab_real = static_cast<int32_t>(plan.args.vocab_real);
  view.tiles = plan.tiles;
  view.masks = masks_of(plan, row);
  view.aligned = copied || plan.aligned;
  view.largest = summary.best;
  view.scale = divisor == 0.0f ? scale_of(row.temperature) : copied ? 1.0f : scale_of(divisor);
  view.masses_per_weight = plan.masses_per_weight;
  view.min_weight = row.min_p;
  view.trims = row.profile == SamplingProfile::kFasterTransformer;
  return view;
}

__device__ inline float log_softmax(float logit, const Summary& summary) {
  return static_cast<float>(static_cast<double>(logit) - static_cast<double>(summary.largest) -
                            static_cast<double>(logf(summary.sum)));
}

// The k of top-k, or 0 if k ids are all that may be drawn under any rules.
__device__ inline int32_t effective_top_k(const Plan& plan, const SamplingRow& row) {
  const auto vocab_real = static_cast<int32_t>(plan.args.vocab_real);
  const Masks masks = masks_of(plan, row);
  int32_t drawable = vocab_real;
  if (masks.pad >= 0 && masks.pad < vocab_real) --drawable;
  if (masks.eos >= 0 && masks.eos < vocab_real && masks.eos != masks.pad) --drawable;
  return row.top_k < drawable ? row.top_k : 0;
}

}  // namespace optserve::kernels::sampling

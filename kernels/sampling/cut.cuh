// Finds where top-k, top-p and typical-p cut a row, with one block of threads and without sorting the row: histograms
// of keys narrow down the ids that may be the last to stay until these fit into a list in shared memory, which is then
// sorted.
#pragma once

#include "kernels/sampling/row.cuh"

namespace optserve::kernels::sampling {

constexpr int kCutThreads = 512;
constexpr int kCutWarps = kCutThreads / kLanes;
constexpr int kBinBits = 11, kBins = 1 << kBinBits;
constexpr int kThreadBins = kBins / kCutThreads;
constexpr int kListMax = 2048;
constexpr int kThreadListed = kListMax / kCutThreads;

// The keys from low to high, both inclusive. `before` is the measure of what is better, `count` the number of ids
// inside.
struct Bracket {
  uint32_t low, high;
  uint64_t before;
  int count;
};

// Masses are kept in two halves, and the carry of the lower half is added to the upper one, so that 32-bit atomics add
// 64-bit numbers.
struct Histogram {
  uint32_t counts[kBins];
  uint32_t masses_low[kBins];
  uint32_t masses_high[kBins];
};

struct Shared {
  union {
    Histogram histogram;
    uint64_t list[kListMax];  // the key, best first, then the id: sorts in the order in which top-k and top-p rank
  };
  RowView row;
  uint64_t warp_sums[kCutWarps];
  Bracket bracket;
  Cut cut;
  int cut_index;
  int listed;
  int32_t located;
  int32_t reset;  // position after the last id that resets top-p
};

__device__ inline uint64_t ranked(uint32_t key, int32_t id) { return uint64_t{~key} << 32 | static_cast<uint32_t>(id); }
__device__ inline float ranked_logit(uint64_t entry) { return logit_of(~static_cast<uint32_t>(entry >> 32)); }
__device__ inline int32_t ranked_id(uint64_t entry) { return static_cast<int32_t>(entry & 0xffffffffu); }

// An order in which ids are taken has these functions. rank(): ids of higher rank come first, equal ones in order of
// id; -infinity excludes an id. floor(): a logit below which no id has a rank of that key or better. mass(): what an
// included id counts, unless ids are counted.

// The order of top-k and top-p: the largest logits first, among the ids that `cut` keeps.
struct ByLogit {
  const RowView& row;
  Cut cut;
  __device__ float rank(float logit, int32_t id) const { return cut.keeps(logit, id) ? logit : -INFINITY; }
  __device__ float floor(uint32_t key) const { return logit_of(key); }
  __device__ uint64_t mass(float logit, int32_t) const { return row.mass(logit); }
  __device__ uint64_t listed_mass(uint64_t entry) const { return row.mass(ranked_logit(entry)); }
  __device__ bool trims() const { return row.trims; }
};

// What an id counts: top-k counts ids, the others sum masses.
template <bool kMass, class Order>
__device__ uint64_t measure_of(const Order& order, uint64_t entry) {
  if constexpr (kMass) return order.listed_mass(entry);
  return 1;
}

// The sum over the threads before this one; `total` becomes the sum over all threads.
__device__ inline uint64_t block_sum_before(uint64_t value, uint64_t& total, Shared& shared) {
  const uint64_t running = warp_running_sum(value);
  if (lane_id() == kLanes - 1) shared.warp_sums[warp_id()] = running;
  __syncthreads();
  uint64_t before = running - value;
  total = 0;
  for (int warp = 0; warp < kCutWarps; ++warp) {
    if (warp == warp_id()) before += total;
    total += shared.warp_sums[warp];
  }
  __syncthreads();
  return before;
}

// Calls body(tile, groups) for the tiles of this warp, with the bits of the groups that have a logit of at least
// `floor`. The maxima of many tiles are loaded at once: most tiles have no such group, and cost nothing but the wait
// for the load.
template <class Body>
__device__ void for_each_tile(const RowView& row, float floor, const Body& body) {
  constexpr int kAhead = 8;
  for (int first = warp_id(); first < row.tiles; first += kAhead * kCutWarps) {
    float maxima[kAhead];
    uint32_t groups[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int tile = first + i * kCutWarps;
      const bool is_group = tile < row.tiles && lane_id() < kTileGroups;
      maxima[i] = is_group ? row.group_maxima[tile * kTileGroups + lane_id()] : -INFINITY;
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) groups[i] = __ballot_sync(kAllLanes, maxima[i] >= floor);
#pragma unroll 1
    for (int tile = first; tile < row.tiles && tile < first + kAhead * kCutWarps; tile += kCutWarps) {
      body(tile, groups[0]);
#pragma unroll
      for (int i = 1; i < kAhead; ++i) groups[i - 1] = groups[i];
    }
  }
}

// ---- histograms

// Bins are equal ranges of keys, the best first.
__device__ inline int bin_shift(const Bracket& bracket) {
  const int bits = 32 - __clz(static_cast<int>(bracket.high - bracket.low));
  return bits > kBinBits ? bits - kBinBits : 0;
}

__device__ inline void clear_histogram(Shared& shared) {
  __syncthreads();
  for (int bin = static_cast<int>(threadIdx.x); bin < kBins; bin += kCutThreads) {
    shared.histogram.counts[bin] = 0;
    shared.histogram.masses_low[bin] = 0;
    shared.histogram.masses_high[bin] = 0;
  }
  __syncthreads();
}

template <bool kMass>
__device__ void add_to_bin(Histogram& histogram, int bin, uint64_t mass, uint32_t count) {
  atomicAdd(&histogram.counts[bin], count);
  if constexpr (kMass) {
    const auto low = static_cast<uint32_t>(mass);
    auto high = static_cast<uint32_t>(mass >> 32);
    if (atomicAdd(&histogram.masses_low[bin], low) > ~low) ++high;
    if (high != 0) atomicAdd(&histogram.masses_high[bin], high);
  }
}

// Called by all lanes of a warp; the lanes that are `inside` add their id. Equal logits are common (masked models,
// rounded logits), so a bin that all lanes share gets a single addition.
template <bool kMass>
__device__ void tally(uint64_t mass, int bin, bool inside, Histogram& histogram) {
  const uint32_t lanes = __ballot_sync(kAllLanes, inside);
  if (lanes == 0) return;
  const int first_bin = __shfl_sync(kAllLanes, bin, __ffs(static_cast<int>(lanes)) - 1);
  if (__ballot_sync(kAllLanes, inside && bin != first_bin) != 0) {
    if (inside) add_to_bin<kMass>(histogram, bin, mass, 1);
    return;
  }
  uint64_t sum = 0;
  if constexpr (kMass) sum = warp_sum(mass);
  if (lane_id() == 0) add_to_bin<kMass>(histogram, first_bin, sum, static_cast<uint32_t>(__popc(lanes)));
}

// The bin with which the running measure reaches `wanted`, as a bracket; with count 0 if none does.
template <bool kMass>
__device__ Bracket narrow(const Bracket& bracket, uint64_t wanted, Shared& shared) {
  __syncthreads();
  const Histogram& histogram = shared.histogram;
  uint64_t measures[kThreadBins], sum = 0, total = 0;
  const int first = static_cast<int>(threadIdx.x) * kThreadBins;
#pragma unroll
  for (int i = 0; i < kThreadBins; ++i) {
    measures[i] = histogram.counts[first + i];
    if constexpr (kMass) {
      measures[i] = uint64_t{histogram.masses_high[first + i]} << 32 | histogram.masses_low[first + i];
    }
    sum += measures[i];
  }
  uint64_t before = bracket.before + block_sum_before(sum, total, shared);
  if (threadIdx.x == 0) shared.bracket = {bracket.low, bracket.high, bracket.before, 0};
  __syncthreads();
  const int shift = bin_shift(bracket);
#pragma unroll
  for (int i = 0; i < kThreadBins; ++i) {
    if (before < wanted && before + measures[i] >= wanted) {
      const uint32_t high = bracket.high - (static_cast<uint32_t>(first + i) << shift);
      const uint32_t width = (1u << shift) - 1;
      const uint32_t low = high - bracket.low > width ? high - width : bracket.low;
      shared.bracket = {low, high, before, static_cast<int>(histogram.counts[first + i])};
    }
    before += measures[i];
  }
  __syncthreads();
  return shared.bracket;
}

// Builds the histogram of the ids inside the bracket.
template <bool kMass, class Order>
__device__ void fill_histogram(const Order& order, const Bracket& bracket, Shared& shared) {
  clear_histogram(shared);
  const int shift = bin_shift(bracket);
  for_each_tile(order.row, order.floor(bracket.low), [&](int tile, uint32_t groups) {
    for_each_drawable(order.row, tile, groups, [&](float logit, int32_t id) {
      const uint32_t key = key_of(order.rank(logit, id));
      const bool inside = key >= bracket.low && key <= bracket.high;
      const int bin = inside ? static_cast<int>((bracket.high - key) >> shift) : 0;
      tally<kMass>(kMass && inside ? order.mass(logit, id) : 0, bin, inside, shared.histogram);
    });
  });
}

// ---- lists

// Lists the ids inside the bracket, in any order. Returns their number, or a number above kListMax if they do not fit.
template <class Order>
__device__ int collect(const Order& order, const Bracket& bracket, Shared& shared) {
  __syncthreads();
  if (threadIdx.x == 0) shared.listed = 0;
  __syncthreads();
  bool full = false;
  for_each_tile(order.row, order.floor(bracket.low), [&](int tile, uint32_t groups) {
    for_each_drawable(order.row, tile, full ? 0 : groups, [&](float logit, int32_t id) {
      const uint32_t key = key_of(order.rank(logit, id));
      const bool inside = key >= bracket.low && key <= bracket.high;
      const uint32_t lanes = __ballot_sync(kAllLanes, inside);
      if (lanes == 0 || full) return;
      int at = 0;
      if (lane_id() == 0) at = atomicAdd(&shared.listed, __popc(lanes));
      at = __shfl_sync(kAllLanes, at, 0);
      full = at + __popc(lanes) > kListMax;
      at += __popc(lanes & ((1u << lane_id()) - 1));
      if (inside && at < kListMax) shared.list[at] = ranked(key, id);
    });
  });
  __syncthreads();
  return shared.listed;
}

// Bitonic sort of the first `count` entries of the list.
__device__ inline void sort_list(int count, Shared& shared) {
  int size = 2;
  while (size < count) size *= 2;
  for (int i = count + static_cast<int>(threadIdx.x); i < size; i += kCutThreads) shared.list[i] = UINT64_MAX;
  for (int width = 2; width <= size; width *= 2) {
    for (int stride = width / 2; stride > 0; stride /= 2) {
      __syncthreads();
      for (int pair = static_cast<int>(threadIdx.x); pair < size / 2; pair += kCutThreads) {
        const int low = (pair & ~(stride - 1)) * 2 + (pair & (stride - 1)), high = low + stride;
        const uint64_t a = shared.list[low], b = shared.list[high];
        if ((a > b) == ((low & width) == 0)) {
          shared.list[low] = b;
          shared.list[high] = a;
        }
      }
    }
  }
  __syncthreads();
}

// Determines which of the listed ids, best first, is the last one to stay.
struct ListGoal {
  int count;        // of listed ids
  uint64_t before;  // measure of the ids that are better than all listed
  uint64_t wanted;  // measure to reach, or, if 0, the share `top_p` of what is listed
  float top_p;
};

// Shortens `cut`, a cut of ranks, to the entry of the sorted list with which the goal is reached. Returns how many
// entries stay.
template <bool kMass, class Order>
__device__ int cut_in_list(const Order& order, const ListGoal& goal, Cut& cut, Shared& shared) {
  uint64_t measures[kThreadListed], sum = 0, total = 0;
  const int first = static_cast<int>(threadIdx.x) * kThreadListed;
#pragma unroll
  for (int i = 0; i < kThreadListed; ++i) {
    measures[i] = first + i < goal.count ? measure_of<kMass>(order, shared.list[first + i]) : 0;
    sum += measures[i];
  }
  uint64_t before = goal.before + block_sum_before(sum, total, shared);
  if (threadIdx.x == 0) {
    shared.cut = cut;
    shared.cut_index = goal.count - 1;
  }
  __syncthreads();
  const uint64_t wanted = goal.wanted != 0 ? goal.wanted : target_mass(static_cast<double>(goal.top_p), total);
#pragma unroll
  for (int i = 0; i < kThreadListed; ++i) {
    if (before < wanted && before + measures[i] >= wanted) {
      const uint64_t last_mass = kMass && order.trims() ? wanted - before : UINT64_MAX;
      shared.cut = {ranked_logit(shared.list[first + i]), ranked_id(shared.list[first + i]), last_mass};
      shared.cut_index = first + i;
    }
    before += measures[i];
  }
  __syncthreads();
  cut = shared.cut;
  return shared.cut_index + 1;
}

// ---- cuts

// Sets row.tile_masses to the sums of `measure`, which is 0 below `floor`.
template <class Measure>
__device__ void measure_tiles(const RowView& row, float floor, const Measure& measure) {
  __syncthreads();
  for_each_tile(row, floor, [&](int tile, uint32_t groups) {
    const uint64_t sum = tile_sum(row, tile, groups, measure);
    if (lane_id() == 0) row.tile_masses[tile] = sum;
  });
  __syncthreads();
}

template <class Order>
struct OneIfEqual {
  const Order& order;
  float rank;
  __device__ uint64_t operator()(float logit, int32_t id) const { return order.rank(logit, id) == rank ? 1 : 0; }
};

// For a sum that reaches `wanted` among more ids of one rank than can be listed: cuts after as few of them, in order of
// ids, as reach it. They all have the same logit, or one of two logits whose masses differ.
template <bool kMass, class Order>
__device__ Cut cut_equals(const Order& order, const Bracket& bracket, uint64_t wanted, Shared& shared) {
  const RowView& row = order.row;
  const float rank = logit_of(bracket.low), floor = order.floor(bracket.low);
  const uint64_t missing = wanted - bracket.before;
  const OneIfEqual<Order> one{order, rank};
  const auto measure = [&](float logit, int32_t id) {
    const uint64_t is_equal = one(logit, id);
    return kMass && is_equal != 0 ? order.mass(logit, id) : is_equal;
  };
  measure_tiles(row, floor, measure);
  if (warp_id() == 0) {
    const int32_t id = locate(row, floor, measure, missing);
    if (lane_id() == 0) shared.located = id;
  }
  __syncthreads();
  Cut cut{rank, shared.located, UINT64_MAX};
  if (kMass && order.trims()) {
    const uint64_t each = order.mass(rank, cut.id);
    cut.last_mass = missing - (missing - 1) / each * each;
  }
  return cut;
}

// Shortens `cut`, a cut of ranks, to the fewest ids, in the order, whose measure reaches `wanted`; the last of them
// lies in `bracket`. If exactly the ids that stay are the first ones of the list, returns their number, otherwise 0.
template <bool kMass, class Order>
__device__ int shorten(const Order& order, uint64_t wanted, uint32_t low, uint32_t high, Cut& cut, Shared& shared) {
  Bracket bracket{low, high, 0, 0};
  bracket.count = collect(order, bracket, shared);
  const bool whole = bracket.count <= kListMax;
  while (bracket.count > kListMax) {
    if (bracket.low == bracket.high) {
      cut = cut_equals<kMass>(order, bracket, wanted, shared);
      return 0;
    }
    fill_histogram<kMass>(order, bracket, shared);
    bracket = narrow<kMass>(bracket, wanted, shared);
    if (bracket.count <= kListMax) collect(order, bracket, shared);
  }
  sort_list(bracket.count, shared);
  const int kept = cut_in_list<kMass>(order, {bracket.count, bracket.before, wanted, 0}, cut, shared);
  return whole ? kept : 0;
}

// A logit that at least k ids reach, and not many more: if k groups have a logit of at least x, then so do k ids.
__device__ inline float floor_of_best(const RowView& row, int32_t k, Shared& shared) {
  constexpr int kLevelsMax = 3;
  Bracket bracket{key_of(-FLT_MAX), key_of(row.largest), 0, 0};
  const int groups = row.tiles * kTileGroups;
  const auto enough = static_cast<uint64_t>(k) + static_cast<uint64_t>(k) / 4;
  for (int level = 0; level < kLevelsMax && k <= groups; ++level) {
    clear_histogram(shared);
    const int shift = bin_shift(bracket);
    for (int group = static_cast<int>(threadIdx.x); group < groups; group += kCutThreads) {
      const uint32_t key = key_of(row.group_maxima[group]);
      if (key < bracket.low || key > bracket.high) continue;
      add_to_bin<false>(shared.histogram, static_cast<int>((bracket.high - key) >> shift), 0, 1);
    }
    const Bracket next = narrow<false>(bracket, static_cast<uint64_t>(k), shared);
    if (next.count == 0) break;
    bracket = next;
    if (bracket.before + static_cast<uint64_t>(bracket.count) <= enough) break;
  }
  return logit_of(bracket.low);
}

// A logit below which every id weighs less than `weight`, by more than rounding.
__device__ inline float floor_of_weight(const RowView& row, float weight) {
  const double distance = (static_cast<double>(logf(weight)) - 1e-3) / static_cast<double>(row.scale);
  return fmaxf(__double2float_rd(static_cast<double>(row.largest) + distance), -FLT_MAX);
}
__device__ inline float floor_of_mass(const RowView& row, uint64_t mass) {
  return floor_of_weight(row, (static_cast<float>(mass) - 0.5f) / row.masses_per_weight);
}

// The position from which the decay of top-p counts: after the last generated reset id. Called by all threads of the
// block.
__device__ inline int32_t decay_begin(const Plan& plan, const SamplingRow& row, Shared& shared) {
  if (!has_rules(row) || plan.args.rules == nullptr) return row.prompt_tokens;
  const int32_t* rules = plan.args.rules + row.slot * plan.args.rules_stride;
  const int32_t* resets = rules + kRulesHeader + rules[0] * kRulesEntry;
  const int32_t* known = plan.args.history + row.slot * plan.args.history_stride;
  const int count = rules[3];
  if (count == 0) return row.prompt_tokens;
  if (threadIdx.x == 0) shared.reset = row.prompt_tokens;
  __syncthreads();
  for (int i = row.prompt_tokens + static_cast<int>(threadIdx.x); i < row.position; i += kCutThreads) {
    for (int reset = 0; reset < count; ++reset) {
      if (known[i] == resets[reset]) atomicMax(&shared.reset, i + 1);
    }
  }
  __syncthreads();
  return shared.reset;
}

// top-p after its decay. Called by all threads of the block.
__device__ inline float decayed_top_p(const Plan& plan, const SamplingRow& row, Shared& shared) {
  float p = row.top_p;
  if (row.top_p_decay == 1.0f && row.top_p_min <= p) return p;
  const int32_t begin = decay_begin(plan, row, shared);
  for (int32_t left = row.position - begin - row.top_p_decay_after; left > 0; --left) {
    const float next = fmaxf(__fmul_rn(p, row.top_p_decay), row.top_p_min);
    if (next == p) break;
    p = next;
  }
  return p;
}

// The steps min-p, top-k and top-p of a row; returns what stays. Ids that min-p excludes may be above the cut, but have
// no mass. Called by all threads of the block; row.tile_masses holds all masses unless k > 0.
__device__ inline Cut truncate(const RowView& row, int32_t k, float top_p, Shared& shared) {
  Cut cut = no_cut();
  if (row.min_weight > 0.0f) cut.logit = floor_of_weight(row, row.min_weight);
  const uint32_t best = key_of(row.largest);
  int listed = 0;
  if (k > 0) {
    const float floor = fmaxf(floor_of_best(row, k, shared), cut.logit);
    listed = shorten<false>(ByLogit{row, cut}, static_cast<uint64_t>(k), key_of(floor), best, cut, shared);
  }
  if (top_p >= 1.0f) return cut;
  if (listed > 0) {
    cut_in_list<true>(ByLogit{row, cut}, {listed, 0, 0, top_p}, cut, shared);
    return cut;
  }
  if (k > 0) measure_tiles(row, cut.logit, MassOfKept{row, cut});
  const uint64_t total = sum_of_tiles(row);
  const uint64_t wanted = target_mass(static_cast<double>(top_p), total);
  // All ids below this mass together have less mass than may be left out.
  const uint64_t spare = (total - wanted) / static_cast<uint64_t>(row.vocab_real);
  const float floor = fmaxf(floor_of_mass(row, spare < 1 ? 1 : spare), cut.logit);
  shorten<true>(ByLogit{row, cut}, wanted, key_of(floor), best, cut, shared);
  return cut;
}

}  // namespace optserve::kernels::sampling

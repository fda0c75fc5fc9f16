// typical-p: the selection of cut.cuh in a different order than that of the logits.
#pragma once

#include "kernels/sampling/cut.cuh"

namespace optserve::kernels::sampling {

// The order of typical-p: among the ids that have a mass, those whose surprise (-log of the share) is nearest to the
// expected surprise come first. Surprise is relative to that of the best id, since only differences matter.
struct ByTypicality {
  const RowView& row;
  MassOfKept kept;
  double expected;

  __device__ static float surprise(const MassOfKept& kept, float logit, int32_t id, uint64_t mass) {
    if (id != kept.cut.id || mass != kept.cut.last_mass) return -kept.row.exponent(logit);
    return -logf(static_cast<float>(mass) / kept.row.masses_per_weight);
  }
  __device__ float rank(float logit, int32_t id) const {
    const uint64_t own = kept(logit, id);
    if (own == 0) return -INFINITY;
    return -__double2float_rn(fabs(static_cast<double>(surprise(kept, logit, id, own)) - expected));
  }
  __device__ float floor(uint32_t) const { return fmaxf(kept.cut.logit, -FLT_MAX); }
  __device__ uint64_t mass(float logit, int32_t id) const { return kept(logit, id); }
  __device__ uint64_t listed_mass(uint64_t entry) const { return kept(row.values[ranked_id(entry)], ranked_id(entry)); }
  __device__ bool trims() const { return false; }
};

struct SurpriseOfKept {
  MassOfKept kept;
  __device__ uint64_t operator()(float logit, int32_t id) const {
    const uint64_t mass = kept(logit, id);
    if (mass == 0) return 0;
    return __double2ull_rn(__ull2double_rn(mass) * static_cast<double>(ByTypicality::surprise(kept, logit, id, mass)));
  }
};

// The ids that typical-p keeps, of those that another cut keeps.
struct MassOfTypical {
  ByTypicality order;
  Cut near;  // of ranks
  __device__ uint64_t operator()(float logit, int32_t id) const {
    return near.keeps(order.rank(logit, id), id) ? order.mass(logit, id) : 0;
  }
};

// The step typical-p of a row, after `cut`; row.tile_masses then holds the masses of what stays. Called by all threads
// of the block.
__device__ inline MassOfTypical choose_typical(const RowView& row, const Cut& cut, float typical_p, Shared& shared) {
  const MassOfKept kept{row, cut};
  measure_tiles(row, cut.logit, kept);
  const uint64_t total = sum_of_tiles(row);
  measure_tiles(row, cut.logit, SurpriseOfKept{kept});
  const double expected = __ull2double_rn(sum_of_tiles(row)) / __ull2double_rn(total);
  MassOfTypical typical{{row, kept, expected}, no_cut()};
  const uint64_t wanted = target_mass(static_cast<double>(typical_p), total);
  shorten<true>(typical.order, wanted, key_of(-FLT_MAX), key_of(0.0f), typical.near, shared);
  measure_tiles(row, cut.logit, typical);
  return typical;
}

}  // namespace optserve::kernels::sampling

// Causal self-attention over the paged cache, with the heads split over the ranks.
#pragma once

#include "engine/batch.h"
#include "engine/kv_cache.h"
#include "engine/layers/linear.h"

namespace optserve::engine {

class Attention {
 public:
  // `kv`: this layer's part of the cache, which must outlive the layer.
  Attention(WeightLoader& loader, int64_t layer, backend::KvLayer kv);
  // [n, hidden] -> [n, hidden], this rank's part of the sum over the ranks, without bias().
  void forward_part(Exec& exec, const Batch& batch, Tensor x, Tensor out) const;
  const Tensor& bias() const { return out_.bias(); }

 private:
  ColumnParallelLinear qkv_;
  RowParallelLinear out_;
  backend::KvLayer kv_;
};

}  // namespace optserve::engine

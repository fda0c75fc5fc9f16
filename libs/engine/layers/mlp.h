// activation(x W1^T + b1) W2^T, with the inner width split over the ranks.
#pragma once

#include "engine/layers/linear.h"

namespace optserve::engine {

class Mlp {
 public:
  Mlp(WeightLoader& loader, int64_t layer);
  // [n, hidden] -> [n, hidden], this rank's part of the sum over the ranks, without bias().
  void forward_part(Exec& exec, Tensor x, Tensor out) const;
  const Tensor& bias() const { return down_.bias(); }

 private:
  ColumnParallelLinear up_;
  RowParallelLinear down_;
};

}  // namespace optserve::engine

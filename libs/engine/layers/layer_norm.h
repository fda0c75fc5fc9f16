// LN(x) = (x - mean) / sqrt(var + 1e-5) * gamma + beta over the hidden axis.
#pragma once

#include <string>

#include "engine/weight_loader.h"
#include "engine/workspace.h"

namespace optserve::engine {

class LayerNorm {
 public:
  LayerNorm(WeightLoader& loader, const std::string& name)
      : gamma_(loader.table(name + ".weight")), beta_(loader.table(name + ".bias")) {}

  void forward(Exec& exec, Tensor x, Tensor out) const { exec.backend.layer_norm(x, gamma_.view, beta_.view, out); }
  // x is each rank's part. residual += the sum of the parts + bias, and then out = LN(residual). Afterwards x is
  // undefined.
  void sum_add_and_norm(Exec& exec, Tensor x, const Tensor& bias, Tensor residual, Tensor out) const {
    if (exec.communicator.try_sum_and_norm({x, bias, residual, gamma_.view, beta_.view, out})) return;
    exec.communicator.all_reduce_sum(x);
    exec.backend.add_bias_residual_norm(x, bias, residual, gamma_.view, beta_.view, out);
  }

 private:
  Table gamma_;
  Table beta_;
};

}  // namespace optserve::engine

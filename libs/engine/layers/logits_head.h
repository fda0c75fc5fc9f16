// logits = x E^T for chosen rows, the vocabulary split over the ranks and gathered.
#pragma once

#include <optional>

#include "engine/exec.h"
#include "engine/layers/linear.h"

namespace optserve::engine {

class LogitsHead {
 public:
  explicit LogitsHead(WeightLoader& loader);
  // hidden [n, hidden], rows I32[k] -> F32[k, vocab] on rank 0; on the others the result is undefined. k is at most the
  // workspace's logit_rows_max. Every rank takes part.
  Tensor forward(Exec& exec, Tensor hidden, Tensor rows) const;

 private:
  std::optional<Linear> project_out_;
  Weight weight_;
};

}  // namespace optserve::engine

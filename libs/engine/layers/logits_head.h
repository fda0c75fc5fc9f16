// logits = x E^T for chosen rows. The vocabulary is split over the ranks, and the results are gathered.
#pragma once

#include <optional>

#include "engine/layers/linear.h"
#include "engine/workspace.h"

namespace optserve::engine {

class LogitsHead {
 public:
  // `token_table`: this rank's rows of the token embedding, which must outlive the head.
  LogitsHead(WeightLoader& loader, const Tensor& token_table);
  // Takes hidden, [n, hidden], and rows, I32[k] or empty for all rows, and returns F32[k, vocab], with the same bits on
  // every rank. k is at most the workspace's logit_rows_max. Every rank must call it.
  Tensor forward(Exec& exec, Tensor hidden, Tensor rows) const;

 private:
  std::optional<Linear> project_out_;
  quant::Weight weight_;
};

}  // namespace optserve::engine

// One step as arrays on the device, which Slots makes from a plan.
#pragma once

#include <optional>

#include "backend/backend.h"

namespace optserve::engine {

struct Batch {
  int64_t num_tokens = 0;  // rows, padding included
  backend::StepEntry entry;
  backend::AttentionBatch attention;
  int64_t num_draws = 0;  // rows of `sample`
  Tensor draw_rows;       // I32[num_draws]: the rows that draw a token; empty: all rows do
  backend::SampleBatch sample;
  Tensor score_rows;  // I32[n]: rows whose log-probability of `score_targets` is wanted
  Tensor score_targets;
  int32_t score_best = 0;  // the maximum number of best ids that one of these rows wants
  // Steps with the same key differ only in the contents of their tensors, so that one recorded graph serves all of
  // them. Empty: the step is not recorded.
  std::optional<uint64_t> graph_key;
};

}  // namespace optserve::engine

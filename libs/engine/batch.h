// One step on the device: what Slots makes of a plan.
#pragma once

#include <optional>

#include "backend/backend.h"

namespace optserve::engine {

struct Batch {
  int64_t num_tokens = 0;  // rows, padding included
  backend::StepEntry entry;
  backend::AttentionBatch attention;
  int64_t num_draws = 0;  // rows of `sample`
  Tensor draw_rows;       // I32[num_draws]; empty: every row of the step draws
  backend::SampleBatch sample;
  Tensor score_rows;  // I32[n]: rows whose log-probability of `score_targets` is wanted
  Tensor score_targets;
  // Steps of the same key differ in the contents of their tensors alone.
  std::optional<uint64_t> graph_key;
};

}  // namespace optserve::engine

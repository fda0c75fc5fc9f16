// From hidden states to drawn tokens and log-probabilities. Logits are gathered to rank 0, which draws; the ids go to
// all ranks.
#pragma once

#include <vector>

#include "batching/step_plan.h"
#include "engine/models/opt.h"
#include "engine/slots.h"

namespace optserve::engine {

class Sampler {
 public:
  Sampler(Backend& backend, const model_spec::OptConfig& config, const SlotLimits& limits);

  // `hidden`: what the model made of the plan's rows. Tells `slots` what was drawn. The result is filled in on rank 0
  // only.
  batching::StepResult run(Exec& exec, const OptModel& model, Tensor hidden, const batching::StepPlan& plan,
                           Slots& slots);

 private:
  void collect(const batching::StepPlan& plan, const Slots& slots);
  void draw(Exec& exec, const OptModel& model, Tensor hidden);
  void score(Exec& exec, const OptModel& model, Tensor hidden);

  model_spec::OptConfig config_;
  // Of the present step: rows that draw, and rows whose log-probabilities are wanted.
  std::vector<int32_t> draw_rows_, score_rows_, targets_;
  std::vector<SampleRow> sample_rows_;
  std::vector<int32_t> ids_;
  std::vector<float> drawn_logprobs_, scores_;
  Buffer draw_rows_buffer_, score_rows_buffer_, targets_buffer_, ids_buffer_, drawn_logprobs_buffer_, scores_buffer_;
};

}  // namespace optserve::engine

// Guesses of the tokens that come next, from outside of the planner: a small model, for example. A wrong guess costs
// time and nothing else, since every drafted position draws its token as it would alone.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "batching/planner.h"

namespace optserve::batching {

class DraftSource {
 public:
  virtual ~DraftSource() = default;
  // Whether guessing is worth its time at present. Asked before each step.
  virtual bool pays() = 0;
  // For each query at most `most` ids that may follow its tokens; fewer or none are fine.
  virtual std::vector<std::vector<TokenId>> draft(std::span<const DraftQuery> queries) = 0;
  // How many ids of one earlier answer were drawn as they were guessed. Told of each answer once its step has ended.
  virtual void note(int32_t accepted) = 0;
};

// Plans the next step with guesses of `source` where it pays; null: without any. See Planner::plan().
std::optional<StepPlan> plan_step(Planner& planner, DraftSource* source);
// Applies the result of a step that plan_step() planned, and tells `source` what its guesses were worth.
std::vector<SequenceEvent> apply_step(Planner& planner, const StepResult& result, DraftSource* source);

}  // namespace optserve::batching

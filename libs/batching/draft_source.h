// A source of guesses of the next tokens, for example a small model, and functions that run a planner with it. A wrong
// guess costs nothing but time, since each position draws its token as it would without guesses.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "batching/planner.h"

namespace optserve::batching {

class DraftSource {
 public:
  virtual ~DraftSource() = default;
  // Whether guessing is worth its time at present. Called before each step.
  virtual bool pays() = 0;
  // For each query, at most DraftQuery::most ids that may follow its tokens; there may be fewer, or none.
  virtual std::vector<std::vector<TokenId>> draft(std::span<const DraftQuery> queries) = 0;
  // Reports how many ids of one earlier answer were drawn as guessed. Called for each answer once its step has ended.
  virtual void note(int32_t accepted) = 0;
};

// Adds a sequence to the planner; if it is refused, appends the event that says so.
void add_sequence(Planner& planner, SequenceRequest request, std::vector<SequenceEvent>& events);
// Plans the next step as Planner::plan() does, with guesses of `source` if it says that they pay. `source` may be null.
std::optional<StepPlan> plan_step(Planner& planner, DraftSource* source);
// Applies the result of a step that plan_step() planned, and tells `source` how good its guesses were.
std::vector<SequenceEvent> apply_step(Planner& planner, const StepResult& result, DraftSource* source);

}  // namespace optserve::batching

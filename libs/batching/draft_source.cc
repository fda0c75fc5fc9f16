#include "batching/draft_source.h"

#include <utility>

namespace optserve::batching {

void add_sequence(Planner& planner, SequenceRequest request, std::vector<SequenceEvent>& events) {
  const SequenceId id = request.id;
  const Status status = planner.add(std::move(request));
  if (status.ok()) return;
  SequenceEvent& event = events.emplace_back();
  event.id = id;
  event.refused = status.refusal();
}

std::optional<StepPlan> plan_step(Planner& planner, DraftSource* source) {
  if (source == nullptr || !planner.may_plan() || !source->pays()) return planner.plan();
  const std::vector<DraftQuery> queries = planner.draft_queries();
  return planner.plan(queries.empty() ? Guesses() : source->draft(queries));
}

std::vector<SequenceEvent> apply_step(Planner& planner, const StepResult& result, DraftSource* source) {
  std::vector<SequenceEvent> events = planner.apply(result);
  if (source != nullptr) {
    for (const int32_t accepted : planner.accepted_guesses()) source->note(accepted);
  }
  return events;
}

}  // namespace optserve::batching

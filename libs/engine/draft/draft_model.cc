#include "engine/draft/draft_model.h"

#include <algorithm>
#include <string>
#include <utility>

namespace optserve::engine {
namespace {

batching::PlannerOptions draft_planner_options(const Engine& engine) {
  batching::PlannerOptions options = planner_options(engine);
  options.prefix_cache = true;
  return options;
}

double ms_since(Instant from, Instant to) { return std::chrono::duration<double, std::milli>(to - from).count(); }

}  // namespace

DraftModel::DraftModel(Engine& engine, comm::Communicator& communicator, int32_t draft_tokens, const Clock& clock)
    : leader_(engine, communicator),
      planner_(draft_planner_options(engine)),
      draft_tokens_(draft_tokens),
      context_max_(static_cast<int32_t>(engine.config().max_positions)),
      clock_(clock) {}

bool DraftModel::pays() {
  if (const auto ms = std::exchange(step_ms_, std::nullopt)) policy_.stepped(*ms);
  return policy_.pays();
}

void DraftModel::note(int32_t accepted) {
  policy_.accepted(accepted);
  if (const auto from = std::exchange(drafted_at_, std::nullopt)) step_ms_ = ms_since(*from, clock_.now());
}

// Adds the query as a request for a few more tokens, with the biases, penalties and other options of the sequence.
Status DraftModel::add(size_t index, const batching::DraftQuery& query) {
  batching::SequenceRequest request = *query.request;
  request.id = index;
  const auto known = static_cast<int32_t>(request.tokens.size());
  const int32_t most = std::min({query.most, draft_tokens_, context_max_ - known});
  if (most <= 0) return refuse(ErrorCode::kBadRequest, "no room for guesses");
  request.max_new_tokens = known - request.prompt_tokens + most;
  request.prompt_logprobs = false;
  request.sampling.logprobs = -1;
  return planner_.add(std::move(request));
}

std::vector<std::vector<TokenId>> DraftModel::draft(std::span<const batching::DraftQuery> queries) {
  const Instant begin = clock_.now();
  std::vector<std::vector<TokenId>> drafts(queries.size());
  for (size_t i = 0; i < queries.size(); ++i) (void)add(i, queries[i]);  // a refused query gets no guesses
  while (planner_.has_work() || leader_.in_flight() > 0) {
    while (leader_.can_start()) {
      const auto plan = planner_.plan();
      if (!plan) break;
      leader_.start(*plan);
    }
    for (const batching::SequenceEvent& event : planner_.apply(leader_.finish())) {
      if (event.token) drafts[event.id].push_back(*event.token);
    }
  }
  drafted_at_ = clock_.now();
  policy_.drafted(static_cast<int32_t>(queries.size()), ms_since(begin, *drafted_at_));
  return drafts;
}

Status check_draft_model(const model_spec::OptConfig& draft, const model_spec::OptConfig& model) {
  if (draft.vocab_real == model.vocab_real && draft.eos_id == model.eos_id &&
      draft.more_eos_ids == model.more_eos_ids && draft.pad_id == model.pad_id) {
    return ok_status();
  }
  return refuse(ErrorCode::kBadRequest, "draft-model: " + draft.name + " has " + std::to_string(draft.vocab_real) +
                                            " ids, expected the " + std::to_string(model.vocab_real) + " of " +
                                            model.name + ", with the same special ids");
}

}  // namespace optserve::engine

// A small model that guesses what a large one says next. It is an engine of one rank with a KV cache of its own. What
// it has already computed of a text it finds through the prefix cache, so that it need not follow the large model step
// by step. It draws with the request's own parameters and seed: where its logits are like the large model's, so are its
// draws.
#pragma once

#include <optional>

#include "base/clock.h"
#include "batching/draft_source.h"
#include "engine/draft/draft_policy.h"
#include "engine/generate.h"

namespace optserve::engine {

class DraftModel final : public batching::DraftSource {
 public:
  // `engine`, of one rank, and `communicator`, of a group of one, outlive the object. `draft_tokens`: most guesses for
  // one sequence at a time. `clock` tells what guessing takes.
  DraftModel(Engine& engine, comm::Communicator& communicator, int32_t draft_tokens, const Clock& clock);

  bool pays() override;
  std::vector<std::vector<TokenId>> draft(std::span<const batching::DraftQuery> queries) override;
  void note(int32_t accepted) override;

 private:
  Status add(size_t index, const batching::DraftQuery& query);

  GroupLeader leader_;
  batching::Planner planner_;
  int32_t draft_tokens_;
  int32_t context_max_;
  const Clock& clock_;
  engine::DraftPolicy policy_;
  std::optional<Instant> drafted_at_;  // the end of the last draft(), until its step is known to have ended
  std::optional<double> step_ms_;      // what that step took, until the next one is planned
};

// Refuses a draft model of another vocabulary than `model`. One with a shorter context guesses up to its end.
Status check_draft_model(const model_spec::OptConfig& draft, const model_spec::OptConfig& model);

}  // namespace optserve::engine

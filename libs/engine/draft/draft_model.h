// A small model that guesses the next tokens of a large one. It is an engine of one rank with a KV cache of its own. It
// finds what it has already computed of a text through the prefix cache, so that it need not follow the large model
// step by step. It draws with the request's own parameters and seed, so that where its logits are like those of the
// large model, so are its draws.
#pragma once

#include <optional>

#include "base/clock.h"
#include "batching/draft_source.h"
#include "engine/draft/draft_policy.h"
#include "engine/generate.h"

namespace optserve::engine {

class DraftModel final : public batching::DraftSource {
 public:
  // `engine`, of one rank, `communicator`, of a group of one, and `clock`, which measures how long guessing takes,
  // outlive the object. `draft_tokens` is the maximum number of guesses for one sequence at a time.
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
  DraftPolicy policy_;
  std::optional<Instant> drafted_at_;  // the end of the last draft(), until its step is known to have ended
  std::optional<double> step_ms_;      // what that step took, until the next one is planned
};

// Refuses a draft model whose vocabulary differs from that of `model`. Its context may be shorter: then it guesses only
// up to that length.
Status check_draft_model(const model_spec::OptConfig& draft, const model_spec::OptConfig& model);

}  // namespace optserve::engine

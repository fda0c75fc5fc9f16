// A small model that guesses what a large one says next: an engine of one rank with its own KV cache, which finds what
// it has computed of a text by the prefix cache, so that nothing has to be kept in step with the large model. It draws
// with the request's own parameters and seed: where its logits are like the large model's, so are its draws.
#pragma once

#include <optional>

#include "base/clock.h"
#include "batching/draft_source.h"
#include "engine/generate.h"

namespace optserve {

class DraftModel final : public batching::DraftSource {
 public:
  // `engine`, of one rank, and `communicator`, of a group of one, outlive the object. `draft_tokens`: most guesses at a
  // time.
  DraftModel(Engine& engine, Communicator& communicator, int32_t draft_tokens);

  bool pays() override;
  std::vector<std::vector<TokenId>> draft(std::span<const batching::DraftQuery> queries) override;
  void note(int32_t accepted) override;

 private:
  Status add(size_t index, const batching::DraftQuery& query);

  GroupLeader leader_;
  batching::Planner planner_;
  int32_t draft_tokens_;
  int32_t context_max_;
  SystemClock clock_;
  batching::DraftPolicy policy_;
  std::optional<Instant> drafted_at_;  // the end of the last draft(), until its step is known to have ended
  std::optional<double> step_ms_;      // of that step, until the next one is planned
};

// Refuses a draft model whose ids are not those of `model`. One with a shorter context guesses as far as it reaches.
Status check_draft_model(const OptConfig& draft, const OptConfig& model);

}  // namespace optserve

// Runs a list of generations to their ends, without a server: for tests, evaluation and benchmarks.
#pragma once

#include <functional>
#include <vector>

#include "batching/draft_source.h"
#include "engine/group.h"

namespace optserve::engine {

struct Generation {
  std::vector<TokenId> tokens;         // new ones, the end-of-text id included
  std::vector<float> logprobs;         // of the new ones
  std::vector<float> prompt_logprobs;  // of tokens [1, given), if asked for
  sampling::FinishReason finished = sampling::FinishReason::kLength;
};

// What a planner has to know of an engine. max_context is the model's.
batching::PlannerOptions planner_options(const Engine& engine);

// How far generate_all() has come, told after each step.
struct GenerateProgress {
  uint64_t steps = 0;
  uint64_t tokens = 0;    // new ones of all requests
  uint64_t finished = 0;  // requests
};
// Returns false to stop early: the generations are then as long as they have become.
using OnGenerateStep = std::function<bool(const GenerateProgress&)>;

// Executes all requests together on rank 0 (the other ranks are in follow()); results are in the order of the requests,
// whose ids are ignored. `drafts` guesses where texts do not repeat themselves; may be null. Throws Error if a request
// is refused.
std::vector<Generation> generate_all(GroupLeader& leader, const batching::PlannerOptions& options,
                                     std::vector<batching::SequenceRequest> requests,
                                     batching::PlannerStats* stats = nullptr, const OnGenerateStep& on_step = {},
                                     batching::DraftSource* drafts = nullptr);

}  // namespace optserve::engine

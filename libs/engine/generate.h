// Runs a list of generations to their ends, without a server: for tests, evaluation and benchmarks.
#pragma once

#include <vector>

#include "batching/planner.h"
#include "engine/group.h"

namespace optserve {

struct Generation {
  std::vector<TokenId> tokens;         // new ones, the end-of-text id included
  std::vector<float> logprobs;         // of the new ones
  std::vector<float> prompt_logprobs;  // of tokens [1, given), if asked for
  batching::FinishReason finished = batching::FinishReason::kLength;
};

// What a planner has to know of an engine. max_context: the model's.
batching::PlannerOptions planner_options(const Engine& engine);

// Executes all requests together on rank 0 (the other ranks are in follow()); results are in the order of the requests,
// whose ids are ignored. Throws Error if one is refused.
std::vector<Generation> generate_all(GroupLeader& leader, const batching::PlannerOptions& options,
                                     std::vector<batching::SequenceRequest> requests,
                                     batching::PlannerStats* stats = nullptr);

}  // namespace optserve

// Runs a list of generations to their ends, without a server: for tests, evaluation and benchmarks.
#pragma once

#include <functional>
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

// How far a generate_all is; after each step.
struct GenerateProgress {
  uint64_t steps = 0;
  uint64_t tokens = 0;    // new ones of all requests
  uint64_t finished = 0;  // requests
};
// False gives the rest up: the generations are then as far as they got.
using OnGenerateStep = std::function<bool(const GenerateProgress&)>;

// Executes all requests together on rank 0 (the other ranks are in follow()); results are in the order of the requests,
// whose ids are ignored. Throws Error if one is refused.
std::vector<Generation> generate_all(GroupLeader& leader, const batching::PlannerOptions& options,
                                     std::vector<batching::SequenceRequest> requests,
                                     batching::PlannerStats* stats = nullptr, const OnGenerateStep& on_step = {});

}  // namespace optserve

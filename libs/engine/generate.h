// Runs a list of generations to their ends without a server, for tests, evaluation and benchmarks.
#pragma once

#include <functional>
#include <vector>

#include "batching/draft_source.h"
#include "engine/group.h"

namespace optserve::engine {

struct Generation {
  std::vector<TokenId> tokens;                                     // the new tokens, including the end-of-text id
  std::vector<float> logprobs;                                     // of the new tokens
  std::vector<float> prompt_logprobs;                              // of tokens [1, given), if asked for
  std::vector<std::vector<sampling::TokenLogprob>> prompt_best{};  // at the same positions, if asked for
  sampling::FinishReason finished = sampling::FinishReason::kLength;
};

// The options of a planner for this engine. max_context is that of the model.
batching::PlannerOptions planner_options(const Engine& engine);

// How far generate_all() has come, which it reports after each step.
struct GenerateProgress {
  uint64_t steps = 0;
  uint64_t tokens = 0;    // new tokens of all requests
  uint64_t finished = 0;  // requests
};
// Returns false to stop early: all generations then end where they are.
using OnGenerateStep = std::function<bool(const GenerateProgress&)>;

// Executes all requests together. Called on rank 0, while the other ranks are in follow(). The results are in the order
// of the requests, whose ids are ignored. `drafts`, which may be null, guesses for texts that do not repeat themselves.
// Throws Error if a request is refused.
std::vector<Generation> generate_all(GroupLeader& leader, const batching::PlannerOptions& options,
                                     std::vector<batching::SequenceRequest> requests,
                                     batching::PlannerStats* stats = nullptr, const OnGenerateStep& on_step = {},
                                     batching::DraftSource* drafts = nullptr);

}  // namespace optserve::engine

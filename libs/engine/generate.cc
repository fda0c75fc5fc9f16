#include "engine/generate.h"

#include <algorithm>
#include <iterator>

#include "base/limits.h"

namespace optserve::engine {

batching::PlannerOptions planner_options(const Engine& engine) {
  batching::PlannerOptions options;
  options.num_blocks = engine.options().num_blocks;
  options.block_tokens = limits::kKvBlockTokens;
  options.max_sequences = engine.options().max_sequences;
  options.max_step_tokens = engine.options().max_step_tokens;
  options.max_context = static_cast<int32_t>(engine.config().max_positions);
  options.pipeline_depth = engine.depth();
  options.eos = engine.config().eos_id;
  options.more_eos = engine.config().more_eos_ids;
  options.pad = engine.config().pad_id;
  options.vocab = engine.config().vocab_real;
  return options;
}

std::vector<Generation> generate_all(GroupLeader& leader, const batching::PlannerOptions& options,
                                     std::vector<batching::SequenceRequest> requests, batching::PlannerStats* stats,
                                     const OnGenerateStep& on_step, batching::DraftSource* drafts) {
  batching::Planner planner(options);
  std::vector<Generation> generations(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].id = i;
    if (Status status = planner.add(std::move(requests[i])); !status.ok()) throw Error(status.refusal().message);
  }
  GenerateProgress progress;
  while (planner.has_work() || leader.in_flight() > 0) {
    // As in a server, a step is started while the previous one still runs, so that the device never waits for a plan.
    while (leader.can_start()) {
      const auto plan = batching::plan_step(planner, drafts);
      if (!plan) break;
      leader.start(*plan);
    }
    for (batching::SequenceEvent& event : batching::apply_step(planner, leader.finish(), drafts)) {
      Generation& generation = generations[event.id];
      generation.prompt_logprobs.insert(generation.prompt_logprobs.end(), event.prompt_logprobs.begin(),
                                        event.prompt_logprobs.end());
      std::ranges::move(event.prompt_best, std::back_inserter(generation.prompt_best));
      if (event.token) {
        generation.tokens.push_back(*event.token);
        generation.logprobs.push_back(event.logprob);
        ++progress.tokens;
      }
      if (event.finished) {
        generation.finished = *event.finished;
        ++progress.finished;
      }
    }
    ++progress.steps;
    if (on_step && !on_step(progress)) {
      for (size_t i = 0; i < generations.size(); ++i) planner.cancel(i);
    }
  }
  if (stats != nullptr) *stats = planner.stats();
  return generations;
}

}  // namespace optserve::engine

// Turns hidden states into drawn tokens and log-probabilities. Every rank gathers all logits and draws by itself from
// the same bits, so that no drawn id has to be sent. Only rank 0 reports.
#pragma once

#include <array>
#include <vector>

#include "batching/step_plan.h"
#include "engine/batch.h"
#include "engine/engine.h"
#include "engine/models/opt.h"

namespace optserve::engine {

class Sampler {
 public:
  // `draws_max` and `scores_max` are the maximum numbers of rows of one step.
  Sampler(backend::Backend& backend, int64_t draws_max, int64_t scores_max);

  // Draws the tokens of a step. `hidden`: the last hidden states of its rows. Can be recorded into a graph.
  void draw(Exec& exec, const OptModel& model, Tensor hidden, const Batch& batch);
  // Computes the log-probabilities that the step asks for.
  void score(Exec& exec, const OptModel& model, Tensor hidden, const Batch& batch);
  // Starts copying the results to the host. When the copies are complete, results() may be called with the same `turn`,
  // which is below kStepsInFlight.
  void copy_results(backend::Backend& backend, const Batch& batch, size_t turn);

  struct Results {
    const int32_t* ids;       // [num_draws]
    const float* logprobs;    // [num_draws]
    const float* scores;      // [number of scores]
    const int32_t* best_ids;  // [num_draws, limits::kTopLogprobsMax]; valid for rows that asked for them
    const float* best_logprobs;
    const int32_t* score_best_ids;  // [number of scores, limits::kTopLogprobsMax]; valid as far as a row asks for them
    const float* score_best_logprobs;
  };
  Results results(size_t turn) const;

 private:
  backend::BestIds best_of_scores(const Batch& batch) const;

  Buffer ids_, logprobs_, scores_, best_ids_, best_logprobs_, score_best_ids_, score_best_logprobs_;
  struct HostResults {
    Buffer ids, logprobs, scores, best_ids, best_logprobs, score_best_ids, score_best_logprobs;
  };
  std::array<HostResults, Engine::kStepsInFlight> host_;
};

}  // namespace optserve::engine

#include "engine/sampler.h"

#include <algorithm>

#include "base/limits.h"

namespace optserve::engine {

namespace {
constexpr int64_t kBest = limits::kTopLogprobsMax;
}

Sampler::Sampler(backend::Backend& backend, int64_t draws_max, int64_t scores_max) {
  const auto draws = static_cast<size_t>(draws_max), scores = static_cast<size_t>(scores_max);
  ids_ = backend.allocate(draws * sizeof(int32_t));
  logprobs_ = backend.allocate(draws * sizeof(float));
  scores_ = backend.allocate(scores * sizeof(float));
  best_ids_ = backend.allocate(draws * kBest * sizeof(int32_t));
  best_logprobs_ = backend.allocate(draws * kBest * sizeof(float));
  score_best_ids_ = backend.allocate(scores * kBest * sizeof(int32_t));
  score_best_logprobs_ = backend.allocate(scores * kBest * sizeof(float));
  for (HostResults& host : host_) {
    host.ids = backend.allocate_host(draws * sizeof(int32_t));
    host.logprobs = backend.allocate_host(draws * sizeof(float));
    host.scores = backend.allocate_host(scores * sizeof(float));
    host.best_ids = backend.allocate_host(draws * kBest * sizeof(int32_t));
    host.best_logprobs = backend.allocate_host(draws * kBest * sizeof(float));
    host.score_best_ids = backend.allocate_host(scores * kBest * sizeof(int32_t));
    host.score_best_logprobs = backend.allocate_host(scores * kBest * sizeof(float));
  }
}

void Sampler::draw(Exec& exec, const OptModel& model, Tensor hidden, const Batch& batch) {
  if (batch.num_draws == 0) return;
  const Tensor logits = model.logits(exec, hidden, batch.draw_rows);
  exec.backend.sample(logits, batch.sample,
                      {.ids = ids_.view(DType::kI32, {batch.num_draws}),
                       .logprobs = logprobs_.view(DType::kF32, {batch.num_draws}),
                       .best_ids = best_ids_.view(DType::kI32, {batch.num_draws, kBest}),
                       .best_logprobs = best_logprobs_.view(DType::kF32, {batch.num_draws, kBest})});
}

void Sampler::score(Exec& exec, const OptModel& model, Tensor hidden, const Batch& batch) {
  const backend::BestIds best = best_of_scores(batch);
  const int64_t count = batch.score_rows.dim(0), chunk = exec.workspace.sizes.logit_rows_max;
  for (int64_t begin = 0; begin < count; begin += chunk) {
    const int64_t end = std::min(begin + chunk, count);
    const Tensor logits = model.logits(exec, hidden, batch.score_rows.rows(begin, end));
    exec.backend.token_logprobs(logits, batch.score_targets.rows(begin, end), batch.sample.vocab_real,
                                scores_.view(DType::kF32, {count}).rows(begin, end), best.rows(begin, end));
  }
}

// Empty if no row wants any.
backend::BestIds Sampler::best_of_scores(const Batch& batch) const {
  if (batch.score_best == 0) return {};
  const int64_t count = batch.score_rows.dim(0);
  return {.count = batch.score_best,
          .ids = score_best_ids_.view(DType::kI32, {count, kBest}),
          .logprobs = score_best_logprobs_.view(DType::kF32, {count, kBest})};
}

void Sampler::copy_results(backend::Backend& backend, const Batch& batch, size_t turn) {
  const HostResults& host = host_[turn];
  if (batch.num_draws > 0) {
    backend.copy_to_host(host.ids.data(), ids_.view(DType::kI32, {batch.num_draws}));
    backend.copy_to_host(host.logprobs.data(), logprobs_.view(DType::kF32, {batch.num_draws}));
    if ((batch.sample.features & sampling::kSampleLogprobs) != 0) {
      backend.copy_to_host(host.best_ids.data(), best_ids_.view(DType::kI32, {batch.num_draws, kBest}));
      backend.copy_to_host(host.best_logprobs.data(), best_logprobs_.view(DType::kF32, {batch.num_draws, kBest}));
    }
  }
  if (const int64_t scores = batch.score_rows.dim(0); scores > 0) {
    backend.copy_to_host(host.scores.data(), scores_.view(DType::kF32, {scores}));
    if (const backend::BestIds best = best_of_scores(batch); best.count > 0) {
      backend.copy_to_host(host.score_best_ids.data(), best.ids);
      backend.copy_to_host(host.score_best_logprobs.data(), best.logprobs);
    }
  }
}

Sampler::Results Sampler::results(size_t turn) const {
  const HostResults& host = host_[turn];
  return {static_cast<const int32_t*>(host.ids.data()),
          static_cast<const float*>(host.logprobs.data()),
          static_cast<const float*>(host.scores.data()),
          static_cast<const int32_t*>(host.best_ids.data()),
          static_cast<const float*>(host.best_logprobs.data()),
          static_cast<const int32_t*>(host.score_best_ids.data()),
          static_cast<const float*>(host.score_best_logprobs.data())};
}

}  // namespace optserve::engine

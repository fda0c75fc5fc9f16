#include "engine/sampler.h"

#include <algorithm>

namespace optserve::engine {

namespace {

Tensor upload_ints(Backend& backend, const Buffer& buffer, const std::vector<int32_t>& values) {
  const Tensor view = buffer.view(DType::kI32, {static_cast<int64_t>(values.size())});
  backend.upload(view, values.data());
  return view;
}

}  // namespace

Sampler::Sampler(Backend& backend, const model_spec::OptConfig& config, const SlotLimits& limits) : config_(config) {
  const auto draws = static_cast<size_t>(limits.max_sequences), rows = static_cast<size_t>(limits.max_step_tokens);
  draw_rows_buffer_ = backend.allocate(draws * sizeof(int32_t));
  ids_buffer_ = backend.allocate(draws * sizeof(int32_t));
  drawn_logprobs_buffer_ = backend.allocate(draws * sizeof(float));
  score_rows_buffer_ = backend.allocate(rows * sizeof(int32_t));
  targets_buffer_ = backend.allocate(rows * sizeof(int32_t));
  scores_buffer_ = backend.allocate(rows * sizeof(float));
}

void Sampler::collect(const batching::StepPlan& plan, const Slots& slots) {
  draw_rows_.clear();
  score_rows_.clear();
  targets_.clear();
  sample_rows_.clear();
  int32_t row = 0;
  for (const batching::SlotWork& work : plan.work) {
    for (size_t i = 0; i < work.logprob_targets.size(); ++i) {
      if (work.logprob_targets[i] < 0) continue;
      score_rows_.push_back(row + static_cast<int32_t>(i));
      targets_.push_back(work.logprob_targets[i]);
    }
    row += work.num_tokens;
    if (!work.sample) continue;
    draw_rows_.push_back(row - 1);
    const Slot& slot = slots.at(work.slot);
    const auto length = static_cast<int64_t>(slot.tokens.size());
    SampleRow& sample = sample_rows_.emplace_back();
    sample.params = slot.sampling;
    sample.position = length;
    sample.allow_eos = length - slot.prompt_tokens >= slot.sampling.min_new_tokens;
    sample.history = slot.tokens;
    sample.prompt_tokens = slot.prompt_tokens;
  }
}

void Sampler::draw(Exec& exec, const OptModel& model, Tensor hidden) {
  const auto count = static_cast<int64_t>(draw_rows_.size());
  const Tensor rows = upload_ints(exec.backend, draw_rows_buffer_, draw_rows_);
  const Tensor ids = ids_buffer_.view(DType::kI32, {count});
  const Tensor logprobs = drawn_logprobs_buffer_.view(DType::kF32, {count});
  const int64_t chunk = exec.workspace.sizes.logit_rows_max;
  for (int64_t begin = 0; begin < count; begin += chunk) {
    const int64_t end = std::min(begin + chunk, count);
    const Tensor logits = model.logits(exec, hidden, rows.rows(begin, end));
    if (exec.communicator.rank() != 0) continue;
    const SampleBatch batch{
        std::span(sample_rows_).subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
        config_.vocab_real, config_.eos_id, config_.pad_id};
    exec.backend.sample(logits, batch, ids.rows(begin, end), logprobs.rows(begin, end));
  }
  exec.communicator.broadcast(ids, 0);
  ids_.resize(static_cast<size_t>(count));
  exec.backend.download(ids_.data(), ids);
  if (exec.communicator.rank() != 0) return;
  drawn_logprobs_.resize(static_cast<size_t>(count));
  exec.backend.download(drawn_logprobs_.data(), logprobs);
}

void Sampler::score(Exec& exec, const OptModel& model, Tensor hidden) {
  const auto count = static_cast<int64_t>(score_rows_.size());
  const Tensor rows = upload_ints(exec.backend, score_rows_buffer_, score_rows_);
  const Tensor targets = upload_ints(exec.backend, targets_buffer_, targets_);
  const Tensor scores = scores_buffer_.view(DType::kF32, {count});
  const int64_t chunk = exec.workspace.sizes.logit_rows_max;
  for (int64_t begin = 0; begin < count; begin += chunk) {
    const int64_t end = std::min(begin + chunk, count);
    const Tensor logits = model.logits(exec, hidden, rows.rows(begin, end));
    if (exec.communicator.rank() != 0) continue;
    exec.backend.token_logprobs(logits, targets.rows(begin, end), config_.vocab_real, scores.rows(begin, end));
  }
  if (exec.communicator.rank() != 0) return;
  scores_.resize(static_cast<size_t>(count));
  exec.backend.download(scores_.data(), scores);
}

batching::StepResult Sampler::run(Exec& exec, const OptModel& model, Tensor hidden, const batching::StepPlan& plan,
                                  Slots& slots) {
  batching::StepResult result;
  result.step = plan.step;
  collect(plan, slots);
  if (!score_rows_.empty()) score(exec, model, hidden);
  if (!draw_rows_.empty()) draw(exec, model, hidden);
  const bool reports = exec.communicator.rank() == 0;
  size_t drawn = 0, scored = 0;
  for (const batching::SlotWork& work : plan.work) {
    if (reports && !work.logprob_targets.empty()) {
      batching::SlotLogprobs& slot = result.logprobs.emplace_back();
      slot.slot = work.slot;
      slot.start = work.start;
      for (TokenId target : work.logprob_targets) slot.logprobs.push_back(target < 0 ? 0.0f : scores_[scored++]);
    }
    if (!work.sample) continue;
    const TokenId id = ids_[drawn];
    if (reports) result.sampled.push_back({work.slot, std::max(id, 0), drawn_logprobs_[drawn], id >= 0});
    slots.push_drawn(work.slot, std::max(id, 0));  // a sequence with broken logits may be a step ahead of its end
    ++drawn;
  }
  return result;
}

}  // namespace optserve::engine

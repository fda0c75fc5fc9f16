// What is known about the work of one model: how fast its workers do it, and which share of the tokens that jobs ask
// for they really use. Prompt tokens and output tokens count the same, since the speed is measured over a mixture of
// both.
#pragma once

#include <cstddef>
#include <cstdint>

namespace optserve::scheduler {

class LoadEstimate {
 public:
  LoadEstimate();
  // An estimate of the tokens of a prompt that has no ids yet, by the bytes a token of the earlier prompts had (4 at
  // the start). The leading id is counted.
  int64_t prompt_tokens(size_t bytes) const;
  void learn_prompt(size_t bytes, size_t tokens);
  // A job that asked for `cost` tokens succeeded with `used`.
  void learn_job(int64_t used, int64_t cost);

  // A worker with this speed serves the model, or stops serving it; 0: its speed is not measured yet.
  void add_worker(double speed);
  void remove_worker(double speed);
  // The speed of all workers together; those that are not measured count as the mean of the others. Without workers, it
  // is the last speed that was known. 0: not known.
  double tokens_per_second() const;
  // Mean speed of the measured workers; 0: none is measured.
  double mean_worker_speed() const { return measured_ == 0 ? 0 : measured_sum_ / measured_; }

  // How long jobs that ask for `tokens` take, at the present speed and by the share that jobs use; -1: not known.
  int64_t drain_ms(double tokens) const;

 private:
  double bytes_seen_, tokens_seen_;
  double used_share_ = 1;
  int workers_ = 0, measured_ = 0;
  double measured_sum_ = 0;
  double last_speed_ = 0;
};

}  // namespace optserve::scheduler

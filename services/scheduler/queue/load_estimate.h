// What is known about the work of one model: how fast it is done, and how much of what jobs ask for they use. All in
// tokens, where a prompt token counts as much as an output token: the speed is measured in the same mixture.
#pragma once

#include <cstddef>
#include <cstdint>

namespace optserve::scheduler {

class LoadEstimate {
 public:
  LoadEstimate();
  // Tokens of a prompt whose ids are not known: by the bytes a token had in the prompts seen so far, 4 at the start.
  // The leading </s> is counted.
  int64_t prompt_tokens(size_t bytes) const;
  void learn_prompt(size_t bytes, size_t tokens);
  // A job that asked for `cost` tokens ended in order after `used`.
  void learn_job(int64_t used, int64_t cost);

  // Speeds of the workers that serve the model; 0: not measured yet.
  void add_worker(double speed);
  void remove_worker(double speed);
  // Of all workers; those that are not measured count as the mean of the others. Without workers, the last that was
  // known. 0: not known.
  double tokens_per_second() const;
  // Mean of the measured workers; 0: none is.
  double mean_worker_speed() const { return measured_ == 0 ? 0 : measured_sum_ / measured_; }

  // How long `tokens` of cost take, by the present speed and the share of their cost that jobs use; -1: not known.
  int64_t drain_ms(double tokens) const;

 private:
  double bytes_seen_, tokens_seen_;
  double used_share_ = 1;
  int workers_ = 0, measured_ = 0;
  double measured_sum_ = 0;
  double last_speed_ = 0;
};

}  // namespace optserve::scheduler

#include "scheduler/queue/load_estimate.h"

#include <algorithm>
#include <cmath>

#include "base/limits.h"

namespace optserve::scheduler {
namespace {

constexpr double kTokensRemembered = 100'000;  // of prompts; more are halved, so that the ratio follows
constexpr double kFirstTokens = 1'000;
constexpr double kFirstBytesPerToken = 4;
constexpr double kJobShare = 0.02;  // of one job in the average
constexpr double kUsedShareMin = 0.05;

}  // namespace

LoadEstimate::LoadEstimate() : bytes_seen_(kFirstTokens * kFirstBytesPerToken), tokens_seen_(kFirstTokens) {}

int64_t LoadEstimate::prompt_tokens(size_t bytes) const {
  const double tokens = static_cast<double>(bytes) * tokens_seen_ / bytes_seen_;
  return 1 + std::min<int64_t>(std::llround(std::ceil(tokens)), limits::kContextTokensMax - 1);
}

void LoadEstimate::learn_prompt(size_t bytes, size_t tokens) {
  if (bytes == 0 || tokens == 0) return;
  bytes_seen_ += static_cast<double>(bytes);
  tokens_seen_ += static_cast<double>(tokens);
  if (tokens_seen_ < kTokensRemembered) return;
  bytes_seen_ /= 2;
  tokens_seen_ /= 2;
}

void LoadEstimate::learn_job(int64_t used, int64_t cost) {
  if (cost <= 0) return;
  const double share = std::clamp(static_cast<double>(used) / static_cast<double>(cost), 0.0, 1.0);
  used_share_ = std::max(kUsedShareMin, used_share_ + kJobShare * (share - used_share_));
}

void LoadEstimate::add_worker(double speed) {
  ++workers_;
  if (speed <= 0) return;
  ++measured_;
  measured_sum_ += speed;
  last_speed_ = tokens_per_second();
}

void LoadEstimate::remove_worker(double speed) {
  --workers_;
  if (speed <= 0) return;
  measured_sum_ = --measured_ == 0 ? 0 : measured_sum_ - speed;
}

double LoadEstimate::tokens_per_second() const { return measured_ == 0 ? last_speed_ : mean_worker_speed() * workers_; }

int64_t LoadEstimate::drain_ms(double tokens) const {
  const double speed = tokens_per_second();
  return speed <= 0 ? -1 : std::llround(std::min(1e15, std::max(0.0, tokens) * used_share_ / speed * 1'000));
}

}  // namespace optserve::scheduler

#include "engine/draft/draft_policy.h"

#include <algorithm>

namespace optserve::engine {

namespace {
constexpr int32_t kWindowRounds = 8;
constexpr int32_t kPauseMin = 128, kPauseMax = 8192;
// Without guesses, a step is started while the one before still runs. Measured times do not include that gain, so a
// round must be better by this factor.
constexpr double kGainMin = 1.05;
}  // namespace

bool DraftPolicy::pays() {
  if (paused_for_ == 0) return true;
  --paused_for_;
  return false;
}

void DraftPolicy::drafted(int32_t sequences, double ms) {
  ++rounds_;
  sequences_ += sequences;
  draft_ms_ += ms;
}

void DraftPolicy::stepped(double ms) {
  step_ms_ += ms;
  if (rounds_ < kWindowRounds) return;
  // A round yields sequences_ + accepted_ tokens in the time of drafting and the step; without guesses, a step yields
  // sequences_ tokens.
  const double yield = static_cast<double>(sequences_ + accepted_) / std::max(sequences_, 1);
  const bool worth = yield * step_ms_ > kGainMin * (draft_ms_ + step_ms_);
  pause_ = worth ? 0 : std::clamp(2 * pause_, kPauseMin, kPauseMax);
  paused_for_ = pause_;
  rounds_ = sequences_ = accepted_ = 0;
  draft_ms_ = step_ms_ = 0;
}

}  // namespace optserve::engine

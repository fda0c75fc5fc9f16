// Decides whether guesses of a draft model pay, from times and counts over windows of rounds. A round consists of
// guessing for some sequences and of the step that processes the guesses. Guesses pay if a round takes less time per
// token than steps without guesses; then every step is a round. Otherwise rounds pause, for longer each time that a
// window shows this again.
#pragma once

#include <cstdint>

namespace optserve::engine {

class DraftPolicy {
 public:
  // Whether the next step should be a round. Called before each step, since it counts down pauses.
  bool pays();
  // A round has begun: guessing for `sequences` took `ms`.
  void drafted(int32_t sequences, double ms);
  // The step of the current round took `ms`.
  void stepped(double ms);
  // One sequence of a round drew this many tokens as guessed.
  void accepted(int32_t tokens) { accepted_ += tokens; }

 private:
  int32_t rounds_ = 0, sequences_ = 0, accepted_ = 0;
  double draft_ms_ = 0, step_ms_ = 0;
  int32_t paused_for_ = 0;  // steps
  int32_t pause_ = 0;       // length of the last one, in steps
};

}  // namespace optserve::engine

// Whether guesses of a draft model pay, from times and counts over windows of rounds. A round is one guess for some
// sequences and the step that processes what was guessed. Guesses pay if a round takes less time for its tokens than
// steps without guesses would: then every step is a round. Otherwise rounds pause, and pause longer each time that a
// window shows the same.
#pragma once

#include <cstdint>

namespace optserve::engine {

class DraftPolicy {
 public:
  // Whether the next step should be a round. Asked before each step, since it counts pauses down.
  bool pays();
  // A round has begun: guessing for `sequences` took `ms`.
  void drafted(int32_t sequences, double ms);
  // The step of the present round took `ms`.
  void stepped(double ms);
  // One sequence of a round drew this many tokens as they were guessed.
  void accepted(int32_t tokens) { accepted_ += tokens; }

 private:
  int32_t rounds_ = 0, sequences_ = 0, accepted_ = 0;
  double draft_ms_ = 0, step_ms_ = 0;
  int32_t paused_for_ = 0;  // steps
  int32_t pause_ = 0;       // length of the last one, in steps
};

}  // namespace optserve::engine

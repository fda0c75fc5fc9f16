// Guesses of the tokens that come next, from outside of the planner: a small model. A wrong guess costs time and
// nothing else, since every drafted position draws its token as it would alone.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.h"
#include "batching/planner.h"

namespace optserve::batching {

struct DraftQuery {
  const SequenceRequest* request = nullptr;  // its tokens: all that are known
  int32_t most = 0;                          // guesses wanted, above 0
};

class DraftSource {
 public:
  virtual ~DraftSource() = default;
  // Whether guessing is worth its time at present. Asked before each step.
  virtual bool pays() = 0;
  // Of each query at most `most` ids that may follow its tokens; fewer or none are fine.
  virtual std::vector<std::vector<TokenId>> draft(std::span<const DraftQuery> queries) = 0;
  // So many ids of one earlier answer were drawn as guessed.
  virtual void note(int32_t accepted) = 0;
};

// Whether a source pays, from times and counts over windows of rounds. A round is one draft() and the step that
// processes what it gave. Guesses pay if the tokens that a round yields cost less than one by one: then every round
// guesses; else rounds pause, for longer each time that a window shows the same.
class DraftPolicy {
 public:
  // Asked before each step; counts pauses down.
  bool pays();
  // A round has begun: guessing for `sequences` took `ms`.
  void drafted(int32_t sequences, double ms);
  // The step of the present round took `ms`.
  void stepped(double ms);
  // One sequence of a round drew so many tokens as guessed.
  void accepted(int32_t tokens) { accepted_ += tokens; }

 private:
  int32_t rounds_ = 0, sequences_ = 0, accepted_ = 0;
  double draft_ms_ = 0, step_ms_ = 0;
  int32_t paused_for_ = 0;  // steps
  int32_t pause_ = 0;       // the last one's length
};

}  // namespace optserve::batching

// Speculation by prompt lookup: if a text repeats itself, the tokens that followed the last time are drafted as the
// next ones, and one step processes them all. Each drafted position draws its token as it would alone, so the output is
// the same; a draft only decides how many rows of a step are useful. (A. Saxena, "Prompt Lookup Decoding", 2023.)
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.h"

namespace optserve::batching {

// Finds the most recent earlier occurrence of the last three tokens and returns what followed it, at most `most` ids.
// Empty if there is none.
std::vector<TokenId> look_up(std::span<const TokenId> tokens, int32_t most);

// Decides whether one sequence drafts. Drafts that are wrong from the first token on make it pause, each time for
// longer.
class Speculation {
 public:
  bool pauses(int32_t tokens) const { return tokens < resume_at_; }
  // Called when a step has processed a draft that followed `tokens` tokens, `accepted` of whose tokens were right.
  void note(int32_t tokens, int32_t accepted);

 private:
  int32_t resume_at_ = 0;
  int32_t pause_ = 1;
};

}  // namespace optserve::batching

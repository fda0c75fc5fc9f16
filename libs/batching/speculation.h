// Speculation by prompt lookup: where a text repeats itself, the tokens that followed the last time are drafted as the
// next ones, and one step processes them all. Each drafted position draws its token as it would alone, so the output
// is the same; a draft only decides how many of a step's rows are of use. (A. Saxena, "Prompt Lookup Decoding", 2023.)
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.h"

namespace optserve::batching {

// Finds the latest earlier place where the last three tokens stand, and returns what followed there, at most `most`
// ids. Empty if there is no such place.
std::vector<TokenId> look_up(std::span<const TokenId> tokens, int32_t most);

// Whether one sequence drafts. Drafts that were wrong from the first token on make it pause, each time for longer.
class Speculation {
 public:
  bool pauses(int32_t tokens) const { return tokens < resume_at_; }
  // A step processed a draft after `tokens` tokens, of which `accepted` were right.
  void note(int32_t tokens, int32_t accepted);

 private:
  int32_t resume_at_ = 0;
  int32_t pause_ = 1;
};

}  // namespace optserve::batching

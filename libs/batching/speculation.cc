#include "batching/speculation.h"

#include <algorithm>

namespace optserve::batching {

namespace {
constexpr size_t kMatched = 3;            // shorter matches are mostly chance, and a wrong draft costs time
constexpr int32_t kPauseTokensMax = 256;  // tokens
}  // namespace

std::vector<TokenId> look_up(std::span<const TokenId> tokens, int32_t most) {
  if (tokens.size() <= kMatched || most <= 0) return {};
  const auto end = tokens.last(kMatched);
  for (size_t at = tokens.size() - kMatched; at-- > 0;) {
    if (!std::ranges::equal(tokens.subspan(at, kMatched), end)) continue;
    // If the repeated part is shorter than the draft, the draft repeats it as well.
    const size_t period = tokens.size() - kMatched - at;
    std::vector<TokenId> draft;
    for (size_t i = 0; i < static_cast<size_t>(most); ++i) {
      draft.push_back(tokens[at + kMatched + i % period]);
    }
    return draft;
  }
  return {};
}

void Speculation::note(int32_t tokens, int32_t accepted) {
  pause_ = accepted > 0 ? 1 : std::min(2 * pause_, kPauseTokensMax);
  resume_at_ = accepted > 0 ? 0 : tokens + pause_;
}

}  // namespace optserve::batching

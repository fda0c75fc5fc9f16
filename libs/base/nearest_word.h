// Guesses which known word was meant by an unknown one.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace optserve {

// The candidate that differs from `word` by the fewest letters left out, added, replaced or swapped; otherwise the only
// one that begins with `word`. Empty if none is close enough.
std::string nearest_word(std::string_view word, std::span<const std::string> candidates);

}  // namespace optserve

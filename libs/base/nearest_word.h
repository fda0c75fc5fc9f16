// Which known word was probably meant by one that is not known.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace optserve {

// The candidate that differs from `word` by the fewest letters left out, added, replaced or swapped; otherwise the
// only one that begins with `word`. Empty if none is near enough.
std::string nearest_word(std::string_view word, std::span<const std::string> candidates);

}  // namespace optserve

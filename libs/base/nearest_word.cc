#include "base/nearest_word.h"

#include <algorithm>
#include <vector>

namespace optserve {
namespace {

// Optimal string alignment: the number of letters left out, added, replaced, or swapped with their neighbour.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> two_back, before(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) before[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({before[j] + 1, row[j - 1] + 1, before[j - 1] + (a[i - 1] != b[j - 1] ? 1 : 0)});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], two_back[j - 2] + 1);
    }
    two_back = before;
    before = row;
  }
  return before[b.size()];
}

}  // namespace

std::string nearest_word(std::string_view word, std::span<const std::string> candidates) {
  size_t best = std::max<size_t>(1, word.size() / 3) + 1;
  std::string nearest;
  for (const std::string& candidate : candidates) {
    const size_t differences = distance(word, candidate);
    if (differences >= best || differences >= candidate.size()) continue;
    best = differences;
    nearest = candidate;
  }
  if (!nearest.empty() || word.size() < 2) return nearest;
  const auto begins = [word](const std::string& candidate) { return candidate.starts_with(word); };
  if (std::count_if(candidates.begin(), candidates.end(), begins) != 1) return "";
  return *std::find_if(candidates.begin(), candidates.end(), begins);
}

}  // namespace optserve

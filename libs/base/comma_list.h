// Splits a word of an option or a variable that holds several values.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

namespace optserve {

// The parts between commas that are not empty.
inline std::vector<std::string> split_at_commas(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    if (end > begin) parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

}  // namespace optserve

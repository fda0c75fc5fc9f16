#include "base/utf8.h"

#include <algorithm>
#include <cstdint>

namespace optserve {
namespace {

// What may follow a leading byte: the length of the character, and the allowed range of the second byte.
struct LeadRule {
  size_t length;
  uint8_t second_min;
  uint8_t second_max;
};

LeadRule rule_for(uint8_t lead) {
  if (lead < 0x80) return {1, 0, 0};
  if (lead < 0xc2) return {0, 0, 0};
  if (lead < 0xe0) return {2, 0x80, 0xbf};
  if (lead == 0xe0) return {3, 0xa0, 0xbf};
  if (lead == 0xed) return {3, 0x80, 0x9f};
  if (lead < 0xf0) return {3, 0x80, 0xbf};
  if (lead == 0xf0) return {4, 0x90, 0xbf};
  if (lead < 0xf4) return {4, 0x80, 0xbf};
  if (lead == 0xf4) return {4, 0x80, 0x8f};
  return {0, 0, 0};
}

// Number of leading bytes of `text` that fit one character; sets `length` to that character's full length (0: bad
// lead).
size_t matching_bytes(std::string_view text, size_t& length) {
  const LeadRule rule = rule_for(static_cast<uint8_t>(text[0]));
  length = rule.length;
  if (length == 0) return 0;
  const size_t available = std::min(length, text.size());
  for (size_t i = 1; i < available; ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    const uint8_t low = i == 1 ? rule.second_min : 0x80;
    const uint8_t high = i == 1 ? rule.second_max : 0xbf;
    if (byte < low || byte > high) return i;
  }
  return available;
}

}  // namespace

size_t valid_utf8_prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    if (static_cast<uint8_t>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    size_t length = 0;
    if (matching_bytes(text.substr(at), length) != length || length == 0) break;
    at += length;
  }
  return at;
}

bool is_incomplete_utf8(std::string_view text) {
  if (text.empty()) return false;
  size_t length = 0;
  return matching_bytes(text, length) == text.size() && text.size() < length;
}

}  // namespace optserve

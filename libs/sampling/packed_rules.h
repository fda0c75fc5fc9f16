// TokenRules in the form that samplers read: one array of numbers.
#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.h"
#include "sampling/token_rules.h"

namespace optserve::sampling {

// The packed form, which is the same on the CPU and on devices, with at most limits::kTokenRulesWordsMax words:
//
//   0        number of entries E
//   1        number of bad words W of two ids or more
//   2        1: only entries with kRuleAllowed may be drawn
//   3        number of reset ids R
//   4..      E times: id, bias (bits of a float), TokenRule bits; in ascending order of ids, each id once
//   ..       R reset ids
//   ..       W times: index of the word's first id, number of its ids
//   ..       the ids of the bad words
//
// Bad words of one id are entries with kRuleBanned.
enum TokenRule : int32_t { kRuleAllowed = 1, kRuleBanned = 2, kRuleStop = 4 };
inline constexpr int kRuleHeaderWords = 4, kRuleEntryWords = 3;

// The rules must be valid. The result is empty for empty rules.
std::vector<int32_t> pack(const TokenRules& rules);

// Reads packed rules, which must outlive the view. No words at all mean empty rules.
class RuleView {
 public:
  struct Entry {
    TokenId id;
    float bias;
    int32_t bits;
  };
  explicit RuleView(std::span<const int32_t> words) : words_(words) {}

  int32_t num_entries() const { return header(0); }
  Entry entry(int32_t i) const {
    const auto at = static_cast<size_t>(kRuleHeaderWords + i * kRuleEntryWords);
    return {words_[at], std::bit_cast<float>(words_[at + 1]), words_[at + 2]};
  }
  bool only_allowed() const { return header(2) != 0; }
  std::span<const TokenId> reset_ids() const {
    return header(3) == 0 ? std::span<const TokenId>() : words_.subspan(resets_at(), static_cast<size_t>(header(3)));
  }
  int32_t num_bad_words() const { return header(1); }
  std::span<const TokenId> bad_word(int32_t i) const {
    const size_t at = resets_at() + static_cast<size_t>(header(3) + 2 * i);
    return words_.subspan(static_cast<size_t>(words_[at]), static_cast<size_t>(words_[at + 1]));
  }

 private:
  int32_t header(size_t i) const { return words_.empty() ? 0 : words_[i]; }
  size_t resets_at() const { return static_cast<size_t>(kRuleHeaderWords + num_entries() * kRuleEntryWords); }
  std::span<const int32_t> words_;
};

}  // namespace optserve::sampling

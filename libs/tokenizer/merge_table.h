// Which pairs of tokens merge, and in which order: a hash table with open addressing and one 64-bit word per entry, so
// that GPT-2's 50,000 merges fill 1 MiB.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/limits.h"

namespace optserve::tokenizer {

class MergeTable {
 public:
  static constexpr uint32_t kNoMerge = UINT32_MAX;

  // Room for `count` merges, at most limits::kVocabularyMax.
  explicit MergeTable(size_t count);

  // Appends the merge of the next rank; false, changing nothing, if the pair has one already. Ids are in
  // [0, limits::kVocabularyMax).
  bool add(TokenId left, TokenId right, TokenId result);

  size_t size() const { return results_.size(); }
  // The pair's place in the merges file; lower ranks merge first. kNoMerge if the pair never merges.
  uint32_t rank(TokenId left, TokenId right) const {
    const uint64_t key = key_of(left, right);
    for (size_t at = slot_of(key);; at = (at + 1) & mask_) {
      const uint64_t entry = entries_[at];
      if (entry == kEmpty) return kNoMerge;
      if (entry >> kRankBits == key) return static_cast<uint32_t>(entry & kRankMask);
    }
  }
  // The result of the merge of this rank.
  TokenId result(uint32_t rank) const { return results_[rank]; }

 private:
  static constexpr int kIdBits = 18;
  static constexpr int kRankBits = 64 - 2 * kIdBits;
  static constexpr uint64_t kRankMask = (uint64_t{1} << kRankBits) - 1;
  static constexpr uint64_t kEmpty = UINT64_MAX;  // its rank bits are above every rank
  static_assert(limits::kVocabularyMax <= size_t{1} << kIdBits && limits::kVocabularyMax < kRankMask);

  static uint64_t key_of(TokenId left, TokenId right) {
    return static_cast<uint64_t>(left) << kIdBits | static_cast<uint64_t>(right);
  }
  size_t slot_of(uint64_t key) const { return static_cast<size_t>(key * 0x9e3779b97f4a7c15u >> shift_); }

  std::vector<uint64_t> entries_;  // key << kRankBits | rank; a power of two, at most half full
  std::vector<TokenId> results_;   // by rank
  size_t mask_ = 0;
  int shift_ = 0;
};

}  // namespace optserve::tokenizer

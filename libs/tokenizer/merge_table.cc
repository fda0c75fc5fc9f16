#include "tokenizer/merge_table.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace optserve::tokenizer {

MergeTable::MergeTable(size_t count) {
  check(count <= limits::kVocabularyMax, "more merges than MergeTable holds");
  const size_t slots = std::bit_ceil(std::max<size_t>(2 * count + 1, 16));
  entries_.assign(slots, kEmpty);
  results_.reserve(count);
  mask_ = slots - 1;
  shift_ = 64 - std::countr_zero(slots);
}

bool MergeTable::add(TokenId left, TokenId right, TokenId result) {
  check(2 * (results_.size() + 1) <= entries_.size(), "more merges than announced");
  const uint64_t key = key_of(left, right);
  size_t at = slot_of(key);
  for (; entries_[at] != kEmpty; at = (at + 1) & mask_) {
    if (entries_[at] >> kRankBits == key) return false;
  }
  entries_[at] = key << kRankBits | results_.size();
  results_.push_back(result);
  return true;
}

}  // namespace optserve::tokenizer

// For tests and fuzzers: byte-level BPE exactly as defined, without cache or heap.
#pragma once

#include <string_view>
#include <vector>

#include "tokenizer/bpe.h"
#include "tokenizer/pretokenizer.h"

namespace optserve::tokenizer {

// Merges the leftmost pair of the lowest rank as long as there is one. Takes quadratic time.
inline void append_naively(const Bpe& bpe, std::string_view piece, std::vector<TokenId>& out) {
  std::vector<TokenId> ids;
  for (const char c : piece) ids.push_back(bpe.byte_token(static_cast<uint8_t>(c)));
  while (true) {
    uint32_t best = MergeTable::kNoMerge;
    size_t at = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const uint32_t rank = bpe.merges().rank(ids[i], ids[i + 1]);
      if (rank < best) {
        best = rank;
        at = i;
      }
    }
    if (best == MergeTable::kNoMerge) break;
    ids[at] = bpe.merges().result(best);
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
  out.insert(out.end(), ids.begin(), ids.end());
}

inline std::vector<TokenId> encode_naively(const Bpe& bpe, std::string_view text) {
  std::vector<TokenId> ids;
  for (size_t at = 0; at < text.size();) {
    const size_t end = piece_end(text, at);
    append_naively(bpe, text.substr(at, end - at), ids);
    at = end;
  }
  return ids;
}

}  // namespace optserve::tokenizer

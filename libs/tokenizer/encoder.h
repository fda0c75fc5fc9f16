// Text to ids. Owned by one thread: it keeps a fixed-size cache of words it has merged before, and scratch space.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "tokenizer/bpe.h"

namespace optserve::tokenizer {

class Encoder {
 public:
  static constexpr size_t kTextBytesMax = 64 << 20;

  // `bpe` outlives the encoder. The cache takes 2 MiB and never grows.
  explicit Encoder(const Bpe& bpe);

  // Appends the ids of `text` to `out`: those of Hugging Face's ByteLevel BPE without prefix space and without special
  // tokens; nothing is normalised, a carriage return stays one. decode(ids) gives `text` back. Refused, with `out` as
  // it was: text that is not valid UTF-8, and text over kTextBytesMax. Time: O(n log n) for every input.
  Status encode(std::string_view text, std::vector<TokenId>& out);

 private:
  static constexpr size_t kSlots = 1 << 15;
  static constexpr size_t kCachedBytes = 24;  // longest word kept
  static constexpr size_t kCachedIds = 9;
  static constexpr size_t kShortPiece = 64;  // up to here scanning for the best merge beats a heap

  using Key = std::array<uint64_t, kCachedBytes / 8>;  // the word's bytes, zero-padded
  struct alignas(64) Slot {                            // one cache line
    Key key{};
    uint8_t bytes = 0;  // 0: empty
    uint8_t count = 0;
    std::array<TokenId, kCachedIds> ids{};
  };
  static_assert(sizeof(Slot) == 64);

  // The heap's item orders by rank, then by place from the left.
  using Candidate = uint64_t;  // rank << 32 | index of the left symbol
  struct Symbol {
    TokenId id = 0;
    uint32_t rank = 0;  // of the merge with the next symbol; kNoMerge if none, or if this symbol is gone
    uint32_t previous = 0;
    uint32_t next = 0;
  };

  void append_piece(std::string_view text, size_t begin, size_t end, std::vector<TokenId>& out);
  void merge_short(std::string_view piece, std::vector<TokenId>& out) const;
  void merge_long(std::string_view piece, std::vector<TokenId>& out);
  void rank_pair(uint32_t left);

  const Bpe* bpe_;
  std::vector<Slot> cache_;
  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
};

}  // namespace optserve::tokenizer

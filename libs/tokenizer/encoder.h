// Encodes text to ids. An encoder belongs to one thread: it keeps a cache, of fixed size, of words that it has merged
// before.
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
  // tokens, except for added tokens that are recognised. Nothing is normalised, so without such tokens Bpe::decode(ids)
  // gives `text` again. Text that is not valid UTF-8 or is longer than kTextBytesMax is refused, and `out` is not
  // changed. Takes O(n log n) time for every input.
  Status encode(std::string_view text, std::vector<TokenId>& out);

 private:
  static constexpr size_t kSlots = 1 << 15;
  static constexpr size_t kCachedBytes = 24;  // the longest word that is kept
  static constexpr size_t kCachedIds = 9;
  static constexpr size_t kShortPiece = 64;  // up to this length, scanning for the best merge is faster than a heap

  using Key = std::array<uint64_t, kCachedBytes / 8>;  // the word's bytes, zero-padded
  struct alignas(64) Slot {                            // one cache line
    Key key{};
    uint8_t bytes = 0;  // 0: empty
    uint8_t count = 0;
    std::array<TokenId, kCachedIds> ids{};
  };
  static_assert(sizeof(Slot) == 64);

  // An item of the heap: the lowest rank comes first, and among equal ranks the leftmost pair.
  using Candidate = uint64_t;  // rank << 32 | index of the left symbol
  struct Symbol {
    TokenId id = 0;
    uint32_t rank = 0;  // of the merge with the next symbol; kNoMerge if none, or if this symbol is gone
    uint32_t previous = 0;
    uint32_t next = 0;
  };

  void append_plain(std::string_view text, std::vector<TokenId>& out);
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

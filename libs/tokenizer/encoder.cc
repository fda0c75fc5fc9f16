#include "tokenizer/encoder.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <string>

#include "base/utf8.h"
#include "tokenizer/pretokenizer.h"

namespace optserve::tokenizer {
namespace {

constexpr uint32_t kNone = UINT32_MAX;    // no neighbour
constexpr size_t kScratchKept = 1 << 16;  // symbols; more than that is freed after a long piece

// `count` bytes at `from` as a little-endian word, filled up with zeros. `readable` bytes may be read there.
uint64_t load_word(const char* from, size_t count, size_t readable) {
  static_assert(std::endian::native == std::endian::little);
  uint64_t word = 0;
  if (count == 0) return 0;
  if (readable < 8) {
    std::memcpy(&word, from, count);
    return word;
  }
  std::memcpy(&word, from, 8);
  return count >= 8 ? word : word & ((uint64_t{1} << (8 * count)) - 1);
}

}  // namespace

Encoder::Encoder(const Bpe& bpe) : bpe_(&bpe), cache_(kSlots) {}

Status Encoder::encode(std::string_view text, std::vector<TokenId>& out) {
  if (text.size() > kTextBytesMax) {
    return refuse(ErrorCode::kBadRequest, "text: expected at most " + std::to_string(kTextBytesMax) + " bytes, found " +
                                              std::to_string(text.size()));
  }
  if (const size_t valid = valid_utf8_prefix(text); valid != text.size()) {
    return refuse(ErrorCode::kBadRequest, "text: expected UTF-8, found an invalid sequence at byte " +
                                              std::to_string(valid) + " of " + std::to_string(text.size()));
  }
  const AddedTokenFinder& added = bpe_->added();
  for (size_t at = 0; !added.empty() && at < text.size();) {
    const AddedTokenFinder::Match match = added.find(text, at);
    append_plain(text.substr(at, match.begin - at), out);
    if (match.id >= 0) out.push_back(match.id);
    at = match.end;
  }
  if (added.empty()) append_plain(text, out);
  return ok_status();
}

void Encoder::append_plain(std::string_view text, std::vector<TokenId>& out) {
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = piece_end(text, begin);
    append_piece(text, begin, end, out);
    begin = end;
  }
}

void Encoder::append_piece(std::string_view text, size_t begin, size_t end, std::vector<TokenId>& out) {
  const size_t bytes = end - begin;
  const std::string_view piece = text.substr(begin, bytes);
  if (bytes == 1) return out.push_back(bpe_->byte_token(static_cast<uint8_t>(text[begin])));
  if (bytes > kShortPiece) return merge_long(piece, out);
  if (bytes > kCachedBytes) return merge_short(piece, out);

  const size_t readable = text.size() - begin;
  Key key{};
  uint64_t hash = bytes;
  for (size_t i = 0; i < key.size() && 8 * i < bytes; ++i) {
    key[i] = load_word(piece.data() + 8 * i, std::min<size_t>(bytes - 8 * i, 8), readable - 8 * i);
    hash = (hash ^ key[i]) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 32;
  }
  Slot& slot = cache_[hash % kSlots];
  if (slot.bytes == bytes && slot.key == key) {
    if (slot.count == 1) return out.push_back(slot.ids[0]);
    out.insert(out.end(), slot.ids.begin(), slot.ids.begin() + slot.count);
    return;
  }
  const size_t before = out.size();
  merge_short(piece, out);
  const size_t count = out.size() - before;
  if (count > kCachedIds) return;
  slot.key = key;
  slot.bytes = static_cast<uint8_t>(bytes);
  slot.count = static_cast<uint8_t>(count);
  std::copy(out.begin() + static_cast<std::ptrdiff_t>(before), out.end(), slot.ids.begin());
}

// merge_short() and merge_long() both take the lowest rank first and, among equal ranks, the leftmost pair.
void Encoder::merge_short(std::string_view piece, std::vector<TokenId>& out) const {
  const MergeTable& merges = bpe_->merges();
  std::array<TokenId, kShortPiece> ids;
  std::array<uint32_t, kShortPiece> ranks;  // ranks[i] is the rank of the pair i, i + 1
  size_t count = piece.size();
  for (size_t i = 0; i < count; ++i) ids[i] = bpe_->byte_token(static_cast<uint8_t>(piece[i]));
  for (size_t i = 0; i + 1 < count; ++i) ranks[i] = merges.rank(ids[i], ids[i + 1]);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) best = ranks[i] < ranks[best] ? i : best;
    if (ranks[best] == MergeTable::kNoMerge) break;
    ids[best] = merges.result(ranks[best]);
    --count;
    std::copy(ids.begin() + best + 2, ids.begin() + count + 1, ids.begin() + best + 1);
    std::copy(ranks.begin() + best + 1, ranks.begin() + count, ranks.begin() + best);
    if (best + 1 < count) ranks[best] = merges.rank(ids[best], ids[best + 1]);
    if (best > 0) ranks[best - 1] = merges.rank(ids[best - 1], ids[best]);
  }
  out.insert(out.end(), ids.begin(), ids.begin() + count);
}

void Encoder::rank_pair(uint32_t left) {
  Symbol& symbol = symbols_[left];
  symbol.rank = symbol.next == kNone ? MergeTable::kNoMerge : bpe_->merges().rank(symbol.id, symbols_[symbol.next].id);
}

void Encoder::merge_long(std::string_view piece, std::vector<TokenId>& out) {
  const auto count = static_cast<uint32_t>(piece.size());
  symbols_.resize(count);
  heap_.clear();
  for (uint32_t i = 0; i < count; ++i) {
    symbols_[i] = {bpe_->byte_token(static_cast<uint8_t>(piece[i])), MergeTable::kNoMerge, i == 0 ? kNone : i - 1,
                   i + 1 == count ? kNone : i + 1};
  }
  const auto candidate = [this](uint32_t at) { return Candidate{symbols_[at].rank} << 32 | at; };
  for (uint32_t i = 0; i < count; ++i) {
    rank_pair(i);
    if (symbols_[i].rank != MergeTable::kNoMerge) heap_.push_back(candidate(i));
  }
  std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
  const auto rank_again = [&](uint32_t at) {
    rank_pair(at);
    if (symbols_[at].rank == MergeTable::kNoMerge) return;
    heap_.push_back(candidate(at));
    std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
  };
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
    const Candidate top = heap_.back();
    heap_.pop_back();
    const auto at = static_cast<uint32_t>(top);
    Symbol& symbol = symbols_[at];
    if (candidate(at) != top) continue;  // the pair changed after this was queued
    Symbol& gone = symbols_[symbol.next];
    symbol.id = bpe_->merges().result(symbol.rank);
    symbol.next = gone.next;
    gone.rank = MergeTable::kNoMerge;
    if (symbol.next != kNone) symbols_[symbol.next].previous = at;
    rank_again(at);
    if (symbol.previous != kNone) rank_again(symbol.previous);
  }
  for (uint32_t i = 0; i != kNone; i = symbols_[i].next) out.push_back(symbols_[i].id);
  if (symbols_.size() > kScratchKept) {
    symbols_ = {};
    heap_ = {};
  }
}

}  // namespace optserve::tokenizer

// GPT-2's byte-level BPE in OPT's order of ids: the vocabulary, the merges, and decoding ids to bytes. A Bpe never
// changes, so one serves all threads; encoding needs an Encoder (encoder.h) per thread.
//
// Special tokens are the entries that no text can produce: neither a byte nor the result of a merge. In OPT's
// vocabulary these are <s> 0, <pad> 1, </s> 2, <unk> 3, <|endoftext|> 50260, madeupword0000 ... 0002 and <mask> 50264.
// Encoding never produces them ("</s>" in a prompt is four plain characters), and they decode to nothing, as do ids
// beyond the vocabulary: OPT pads its 50265 entries to 50272 rows. Added tokens (added_tokens.h) may be special or
// text, and may be recognised in prompts.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/merge_table.h"

namespace optserve::tokenizer {

// The first ids of every OPT vocabulary, in this order.
inline constexpr TokenId kBeginId = 0;    // <s>
inline constexpr TokenId kPadId = 1;      // <pad>
inline constexpr TokenId kEndId = 2;      // </s>, also the first token of every prompt
inline constexpr TokenId kUnknownId = 3;  // <unk>

class Bpe {
 public:
  // Reads gpt2-vocab.json and gpt2-merges.txt, and added-tokens.json unless its path is empty. Refuses what parse()
  // refuses, with the file's name in front; throws Error if a file cannot be read.
  static Result<Bpe> load(const std::filesystem::path& vocabulary, const std::filesystem::path& merges,
                          const std::filesystem::path& added = {});

  // The same from the bytes of the files. Refused are malformed files (vocabulary_file.h), ids 0 to 3 that are not
  // OPT's (as in OpenAI's own GPT-2 vocabulary), a vocabulary that lacks one of the 256 bytes, a merge of or into an
  // unknown or special token, a merge that comes before those that make its parts, and a pair that occurs twice.
  // `added_text` is added-tokens.json (added_tokens.h) or empty; its tokens must be in the vocabulary.
  static Result<Bpe> parse(std::string_view vocabulary_json, std::string_view merges_text,
                           std::string_view added_text = {});

  // The number of entries of the vocabulary; ids are 0 ... size() - 1.
  size_t size() const { return spellings_.size(); }
  bool is_special(TokenId id) const { return contains(id) && token_bytes(id).empty(); }
  // What the token adds to the text, which need not be whole characters. Empty for special ids and for ids outside of
  // the vocabulary.
  std::string_view token_bytes(TokenId id) const {
    if (!contains(id)) return {};
    const auto at = static_cast<size_t>(id);
    return std::string_view(bytes_).substr(starts_[at], starts_[at + 1] - starts_[at]);
  }
  // The token as the vocabulary file writes it, for people; empty for ids outside of the vocabulary.
  std::string_view spelling(TokenId id) const {
    return contains(id) ? std::string_view(spellings_[static_cast<size_t>(id)]) : std::string_view();
  }

  // The bytes of all tokens, without special ones. They need not be valid UTF-8: a model may stop inside a character.
  std::string decode(std::span<const TokenId> ids) const;

  // For encoders: the token of one byte, and the merges.
  TokenId byte_token(uint8_t byte) const { return byte_tokens_[byte]; }
  const MergeTable& merges() const { return merges_; }
  const AddedTokenFinder& added() const { return added_; }

  // FNV-1a over tokens and merges, which is equal for tokenizers that give equal ids. It protects against mistakes, not
  // against attacks.
  uint64_t fingerprint() const { return fingerprint_; }

 private:
  friend class BpeBuilder;
  explicit Bpe(MergeTable merges) : merges_(std::move(merges)) {}
  bool contains(TokenId id) const { return id >= 0 && static_cast<size_t>(id) < spellings_.size(); }

  std::vector<std::string> spellings_;  // by id
  std::string bytes_;                   // of all tokens in id order
  std::vector<uint32_t> starts_;        // size() + 1 offsets into bytes_
  std::array<TokenId, 256> byte_tokens_{};
  MergeTable merges_;
  AddedTokenFinder added_;
  uint64_t fingerprint_ = 0xcbf29ce484222325;
};

}  // namespace optserve::tokenizer

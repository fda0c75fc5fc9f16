#include "tokenizer/bpe.h"

#include <fstream>
#include <optional>
#include <unordered_map>
#include <utility>

#include "tokenizer/byte_alphabet.h"
#include "tokenizer/vocabulary_file.h"

namespace optserve::tokenizer {
namespace {

constexpr std::array<std::string_view, 4> kFirstTokens = {"<s>", "<pad>", "</s>", "<unk>"};

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw errno_error("open " + path.string());
  std::string bytes;
  std::array<char, 1 << 16> block;
  // Reads at least one byte over the limit, so that the reader refuses larger files.
  while (bytes.size() <= kVocabularyFileBytesMax && (in.read(block.data(), block.size()) || in.gcount() > 0)) {
    bytes.append(block.data(), static_cast<size_t>(in.gcount()));
  }
  if (in.bad()) throw errno_error("read " + path.string());
  return bytes;
}

Refusal corrupt(std::string message) { return refuse(ErrorCode::kDataCorrupt, std::move(message)); }

Refusal in_line(const MergeLine& line, const std::string& problem) {
  return corrupt("merges line " + std::to_string(line.number) + ": " + problem);
}

}  // namespace

// Assembles a Bpe step by step. Each step returns a refusal if the files are not valid.
class BpeBuilder {
 public:
  BpeBuilder(std::vector<std::string> spellings, size_t merge_count) : bpe_(MergeTable(merge_count)) {
    bpe_.spellings_ = std::move(spellings);
    ids_.reserve(bpe_.size());
    for (size_t id = 0; id < bpe_.size(); ++id) ids_.emplace(bpe_.spellings_[id], static_cast<TokenId>(id));
    made_.resize(bpe_.size());
  }

  std::optional<Refusal> check_first_tokens() const {
    for (size_t id = 0; id < kFirstTokens.size(); ++id) {
      const std::string_view found = bpe_.spelling(static_cast<TokenId>(id));
      if (found == kFirstTokens[id]) continue;
      return refuse(ErrorCode::kUnsupportedFormat, "vocabulary: expected " + in_quotes(kFirstTokens[id]) + " as id " +
                                                       std::to_string(id) + " (OPT's order), found " +
                                                       in_quotes(found));
    }
    return std::nullopt;
  }

  std::optional<Refusal> add_bytes() {
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const std::string spelling = spelling_of_byte(static_cast<uint8_t>(byte));
      const auto found = ids_.find(spelling);
      if (found == ids_.end()) {
        return corrupt("vocabulary: no token " + in_quotes(spelling) + " for byte " + std::to_string(byte));
      }
      bpe_.byte_tokens_[byte] = found->second;
      made_[static_cast<size_t>(found->second)] = true;
    }
    return std::nullopt;
  }

  std::optional<Refusal> add_merge(const MergeLine& line) {
    const auto left = ids_.find(line.left);
    const auto right = ids_.find(line.right);
    const std::string joined = std::string(line.left) + std::string(line.right);
    const auto result = ids_.find(joined);
    if (left == ids_.end()) return in_line(line, in_quotes(line.left) + " is not in the vocabulary");
    if (right == ids_.end()) return in_line(line, in_quotes(line.right) + " is not in the vocabulary");
    if (result == ids_.end()) return in_line(line, "its result " + in_quotes(joined) + " is not in the vocabulary");
    for (const auto& part : {left, right}) {
      if (made_[static_cast<size_t>(part->second)]) continue;
      return in_line(line, in_quotes(part->first) + " is neither a byte nor made by an earlier merge");
    }
    if (static_cast<size_t>(result->second) < kFirstTokens.size()) {
      return in_line(line, "it would make the special token " + in_quotes(joined) + " out of plain text");
    }
    if (!bpe_.merges_.add(left->second, right->second, result->second)) {
      return in_line(line, in_quotes(line.left) + " and " + in_quotes(line.right) + " merge twice");
    }
    made_[static_cast<size_t>(result->second)] = true;
    add_to_fingerprint(line.left);
    add_to_fingerprint(line.right);
    return std::nullopt;
  }

  std::optional<Refusal> add_tokens(std::vector<AddedToken> tokens) {
    texts_.resize(bpe_.size());
    for (const AddedToken& token : tokens) {
      if (bpe_.spelling(token.id) != token.content) {
        return corrupt("added tokens: expected " + in_quotes(token.content) + " as id " + std::to_string(token.id) +
                       " of the vocabulary, found " + in_quotes(bpe_.spelling(token.id)));
      }
      const auto id = static_cast<size_t>(token.id);
      if (token.special) made_[id] = false;
      if (!token.special && !made_[id]) texts_[id] = token.content;
      add_to_fingerprint(token.content);
    }
    bpe_.added_ = AddedTokenFinder(std::move(tokens));
    return std::nullopt;
  }

  Bpe take() {
    bpe_.starts_.reserve(bpe_.size() + 1);
    for (size_t id = 0; id < bpe_.size(); ++id) {
      bpe_.starts_.push_back(static_cast<uint32_t>(bpe_.bytes_.size()));
      add_to_fingerprint(bpe_.spellings_[id]);
      if (!texts_.empty()) bpe_.bytes_ += texts_[id];
      if (!made_[id]) continue;  // special: no text produces it, and it produces no text
      const auto bytes = bytes_of_spelling(bpe_.spellings_[id]);
      check(bytes.has_value(), "a merge of bytes is spelled in bytes");
      bpe_.bytes_ += *bytes;
    }
    bpe_.starts_.push_back(static_cast<uint32_t>(bpe_.bytes_.size()));
    return std::move(bpe_);
  }

 private:
  void add_to_fingerprint(std::string_view field) {
    constexpr uint64_t kPrime = 0x100000001b3;
    uint64_t& hash = bpe_.fingerprint_;
    for (const char c : field) hash = (hash ^ static_cast<uint8_t>(c)) * kPrime;
    hash = (hash ^ 0xff) * kPrime;  // ends the field: no UTF-8 holds this byte
  }

  Bpe bpe_;
  std::unordered_map<std::string_view, TokenId> ids_;
  std::vector<bool> made_;          // by id: a byte, or the result of a merge
  std::vector<std::string> texts_;  // by id: of added tokens that are text; empty without any
};

Result<Bpe> Bpe::parse(std::string_view vocabulary_json, std::string_view merges_text, std::string_view added_text) {
  auto spellings = read_vocabulary(vocabulary_json);
  if (!spellings.ok()) return spellings.refusal();
  const auto merges = read_merges(merges_text);
  if (!merges.ok()) return merges.refusal();
  BpeBuilder builder(std::move(spellings).value(), merges.value().size());
  if (auto refusal = builder.check_first_tokens()) return *refusal;
  if (auto refusal = builder.add_bytes()) return *refusal;
  for (const MergeLine& line : merges.value()) {
    if (auto refusal = builder.add_merge(line)) return *refusal;
  }
  if (!added_text.empty()) {
    auto added = parse_added_tokens(added_text);
    if (!added.ok()) return added.refusal();
    if (auto refusal = builder.add_tokens(std::move(added).value())) return *refusal;
  }
  return builder.take();
}

Result<Bpe> Bpe::load(const std::filesystem::path& vocabulary, const std::filesystem::path& merges,
                      const std::filesystem::path& added) {
  auto bpe = parse(read_file(vocabulary), read_file(merges), added.empty() ? "" : read_file(added));
  if (bpe.ok()) return bpe;
  return refuse(bpe.refusal().code, vocabulary.string() + " with " + merges.string() + ": " + bpe.refusal().message);
}

std::string Bpe::decode(std::span<const TokenId> ids) const {
  std::string text;
  for (const TokenId id : ids) text += token_bytes(id);
  return text;
}

}  // namespace optserve::tokenizer

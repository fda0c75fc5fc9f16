#include "tokenizer/added_tokens.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>

#include "base/limits.h"
#include "base/utf8.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/vocabulary_file.h"

namespace optserve::tokenizer {
namespace {

using nlohmann::json;

struct AddedFlag {
  const char* name;
  bool AddedToken::*member;
};
constexpr std::array<AddedFlag, 5> kAddedFlags = {{{"special", &AddedToken::special},
                                                   {"recognised", &AddedToken::recognised},
                                                   {"lstrip", &AddedToken::lstrip},
                                                   {"rstrip", &AddedToken::rstrip},
                                                   {"single_word", &AddedToken::single_word}}};

Refusal bad_list(const std::string& what) { return refuse(ErrorCode::kDataCorrupt, "added tokens: " + what); }

Result<AddedToken> parse_token(const json& object) {
  if (!object.is_object() || object.size() != kAddedFlags.size() + 2) return bad_list("an entry has other keys");
  AddedToken token;
  const auto id = object.find("id"), content = object.find("content");
  const bool has_id = id != object.end() && id->is_number_unsigned() && id->get<uint64_t>() < limits::kVocabularyMax;
  if (!has_id) return bad_list("an entry has no id below " + std::to_string(limits::kVocabularyMax));
  if (content == object.end() || !content->is_string()) return bad_list("an entry has no content");
  token.id = id->get<TokenId>();
  token.content = content->get<std::string>();
  if (token.content.empty() || token.content.size() > kSpellingBytesMax) {
    return bad_list("a content has " + std::to_string(token.content.size()) + " bytes, expected 1 to " +
                    std::to_string(kSpellingBytesMax));
  }
  for (const AddedFlag& flag : kAddedFlags) {
    const auto value = object.find(flag.name);
    if (value == object.end() || !value->is_boolean()) {
      return bad_list(std::string(flag.name) + " of " + in_quotes(token.content) + " is not true or false");
    }
    token.*flag.member = value->get<bool>();
  }
  return token;
}

bool is_space(std::string_view text, size_t at) { return detail::character_at(text, at).kind == CharClass::kSpace; }

bool is_word(std::string_view text, size_t at) {
  const CharClass kind = detail::character_at(text, at).kind;
  return text[at] == '_' || kind == CharClass::kLetter || kind == CharClass::kNumber;
}

size_t character_before(std::string_view text, size_t at) {
  do --at;
  while ((static_cast<uint8_t>(text[at]) & 0xc0) == 0x80);
  return at;
}

}  // namespace

std::string added_tokens_text(const std::vector<AddedToken>& tokens) {
  auto list = nlohmann::ordered_json::array();
  for (const AddedToken& token : tokens) {
    nlohmann::ordered_json object = {{"id", token.id}, {"content", token.content}};
    for (const AddedFlag& flag : kAddedFlags) object[flag.name] = token.*flag.member;
    list.push_back(std::move(object));
  }
  return list.dump(1) + "\n";
}

Result<std::vector<AddedToken>> parse_added_tokens(std::string_view text) {
  if (text.size() > kVocabularyFileBytesMax) {
    return bad_list("more than " + std::to_string(kVocabularyFileBytesMax) + " bytes");
  }
  const json list = json::parse(text, nullptr, false);
  if (!list.is_array()) return bad_list("not a JSON list");
  std::vector<AddedToken> tokens;
  std::set<TokenId> ids;
  std::set<std::string> contents;
  for (const json& object : list) {
    Result<AddedToken> token = parse_token(object);
    if (!token.ok()) return token.refusal();
    if (!ids.insert(token.value().id).second || !contents.insert(token.value().content).second) {
      return bad_list(in_quotes(token.value().content) + ", or its id, is there twice");
    }
    tokens.push_back(std::move(token).value());
  }
  return tokens;
}

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens)
    : tokens_(std::move(tokens)), begins_with_byte_(256) {
  std::erase_if(tokens_, [](const AddedToken& token) { return !token.recognised; });
  std::ranges::sort(tokens_, {}, &AddedToken::content);
  for (const AddedToken& token : tokens_) begins_with_byte_[static_cast<uint8_t>(token.content[0])] = true;
}

// Narrows down, byte by byte, the range of contents that match the text.
const AddedToken* AddedTokenFinder::longest_at(std::string_view text, size_t at) const {
  auto low = tokens_.begin(), high = tokens_.end();
  const AddedToken* longest = nullptr;
  for (size_t depth = 0; low != high; ++depth) {
    if (low->content.size() == depth) {  // in order, the shortest comes first
      const size_t end = at + depth;
      const bool touches =
          (at > 0 && is_word(text, character_before(text, at))) || (end < text.size() && is_word(text, end));
      if (!low->single_word || !touches) longest = &*low;
      ++low;
    }
    if (at + depth == text.size()) break;
    const auto byte_of = [depth](const AddedToken& token) { return static_cast<uint8_t>(token.content[depth]); };
    const auto same = std::ranges::equal_range(low, high, static_cast<uint8_t>(text[at + depth]), {}, byte_of);
    low = same.begin();
    high = same.end();
  }
  return longest;
}

AddedTokenFinder::Match AddedTokenFinder::find(std::string_view text, size_t from) const {
  for (size_t at = from; at < text.size(); ++at) {
    if (!begins_with_byte_[static_cast<uint8_t>(text[at])]) continue;
    const AddedToken* token = longest_at(text, at);
    if (token == nullptr) continue;
    Match match{at, at + token->content.size(), token->id};
    while (token->lstrip && match.begin > from && is_space(text, character_before(text, match.begin))) {
      match.begin = character_before(text, match.begin);
    }
    while (token->rstrip && match.end < text.size() && is_space(text, match.end)) {
      match.end += detail::character_at(text, match.end).bytes;
    }
    return match;
  }
  return {text.size(), text.size(), -1};
}

}  // namespace optserve::tokenizer

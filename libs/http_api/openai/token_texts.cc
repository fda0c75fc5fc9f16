#include "http_api/openai/token_texts.h"

#include <algorithm>
#include <set>

#include "base/utf8.h"
#include "tokenizer/lossy_utf8.h"

namespace optserve::http_api {
namespace {

std::string bytes_text(std::string_view bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text = "bytes:";
  for (const char c : bytes) {
    const auto byte = static_cast<uint8_t>(c);
    text += "\\x";
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

}  // namespace

int64_t count_characters(std::string_view text) {
  return std::ranges::count_if(text, [](char c) { return (static_cast<uint8_t>(c) & 0xc0) != 0x80; });
}

TokenTexts::TokenTexts(const tokenizer::Bpe& bpe) : bpe_(&bpe) {
  std::set<std::string> seen;
  for (TokenId id = 0; static_cast<size_t>(id) < bpe.size(); ++id) {
    if (!seen.insert(plain_text(id)).second) hidden_.push_back(id);
  }
}

std::string TokenTexts::plain_text(TokenId id) const {
  const std::string_view bytes = bpe_->token_bytes(id);
  if (bytes.empty()) {
    const std::string_view spelling = bpe_->spelling(id);
    return spelling.empty() ? id_text(id) : std::string(spelling);
  }
  return is_valid_utf8(bytes) ? std::string(bytes) : bytes_text(bytes);
}

std::string TokenTexts::text(TokenId id) const {
  return std::ranges::binary_search(hidden_, id) ? id_text(id) : plain_text(id);
}

std::vector<int64_t> TokenTexts::offsets(std::span<const TokenId> ids, int64_t start) const {
  std::vector<int64_t> offsets;
  offsets.reserve(ids.size());
  int64_t characters = start;
  std::string pending;  // the beginning of a character
  for (const TokenId id : ids) {
    offsets.push_back(characters);
    pending += bpe_->token_bytes(id);
    std::string text;
    pending.erase(0, tokenizer::append_lossy(pending, text));
    characters += count_characters(text);
  }
  return offsets;
}

}  // namespace optserve::http_api

// Any bytes as added-tokens.json, a zero byte, and a text to find them in: matches lie in order inside the text.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "base/utf8.h"
#include "tokenizer/added_tokens.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve::tokenizer;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = input.find('\0');
  auto tokens = parse_added_tokens(input.substr(0, zero));
  if (!tokens.ok() || zero == std::string_view::npos) return 0;
  optserve::check(parse_added_tokens(added_tokens_text(tokens.value())).value() == tokens.value(), "round trip");
  const std::string_view text = input.substr(zero + 1);
  if (!optserve::is_valid_utf8(text)) return 0;
  const AddedTokenFinder finder(std::move(tokens).value());
  for (size_t at = 0; !finder.empty() && at < text.size();) {
    const AddedTokenFinder::Match match = finder.find(text, at);
    const bool advances = match.id < 0 ? match.end == text.size() : match.end > match.begin;
    optserve::check(match.begin >= at && advances && match.end <= text.size(), "a match inside the text");
    at = match.end;
  }
  return 0;
}

#include "http_api/openai/names.h"

#include <span>

#include "base/hex.h"
#include "base/input_check.h"
#include "base/sha256.h"

namespace optserve::http_api {

std::string name_of(std::string_view text, size_t bytes_max) {
  // A name that looks like a digest is replaced by a digest as well, so that nobody can choose the name of another
  // text.
  constexpr std::string_view kDigestPrefix = "sha256-";
  if (text.size() <= bytes_max && is_name(text) && !text.starts_with(kDigestPrefix)) return std::string(text);
  const Sha256::Digest digest = sha256(text);
  return std::string(kDigestPrefix) + to_hex(std::span(digest).first(16));
}

uint64_t number_of(std::string_view text) {
  const Sha256::Digest digest = sha256(text);
  uint64_t number = 0;
  for (const uint8_t byte : std::span(digest).first(8)) number = number << 8 | byte;
  return number;
}

}  // namespace optserve::http_api

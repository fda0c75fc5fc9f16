// The two files of a vocabulary, split at the first NUL byte: loading either refuses them or gives a tokenizer that
// works. "+" instead of the JSON means a complete small vocabulary, so that the merges are reached.
#include <cstdint>

#include "tokenizer/encoder.h"
#include "tokenizer/small_vocabulary.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve;
  using namespace optserve::tokenizer;
  static const std::string complete = story_vocabulary().json();
  const std::string_view both(reinterpret_cast<const char*>(data), size);
  const size_t split = both.find('\0');
  std::string_view json = both.substr(0, split);
  const std::string_view merges = split == std::string_view::npos ? std::string_view() : both.substr(split + 1);
  if (json == "+") json = complete;
  const auto bpe = Bpe::parse(json, merges);
  if (!bpe.ok()) {
    check(!bpe.refusal().message.empty(), "a refusal says why");
    return 0;
  }
  const std::string text = "the end, aaaa \xf0\x9f\x98\x80";
  std::vector<TokenId> ids;
  Encoder encoder(bpe.value());
  check(encoder.encode(text, ids).ok(), "valid text is encoded");
  check(bpe.value().decode(ids) == text, "decoding gives the text back");
  return 0;
}

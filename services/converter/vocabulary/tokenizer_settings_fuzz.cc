// Any bytes as one of the JSON files of a tokenizer; the first byte says which.
#include <cstddef>
#include <cstdint>

#include "converter/vocabulary/tokenizer_settings.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve::converter;
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  TokenizerSettings found;
  if (data[0] % 4 == 0) (void)parse_tokenizer_json(text, "tokenizer.json", found);
  if (data[0] % 4 == 1) (void)parse_tokenizer_config(text, "tokenizer_config.json", found);
  if (data[0] % 4 == 2) (void)parse_added_tokens_json(text, "added_tokens.json", found);
  if (data[0] % 4 == 3) (void)parse_special_tokens_map(text, "special_tokens_map.json", found);
  return 0;
}

// Any UTF-8 text: encoding gives the ids of the definition, which decode to the text, within libFuzzer's -timeout.
// Anything else is refused.
#include <cstdint>

#include "base/utf8.h"
#include "tokenizer/encoder.h"
#include "tokenizer/naive_encoder.h"
#include "tokenizer/small_vocabulary.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve;
  using namespace optserve::tokenizer;
  static const Bpe bpe = story_vocabulary().make();
  static Encoder warm(bpe);
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  std::vector<TokenId> ids;
  const bool encoded = warm.encode(text, ids).ok();
  check_eq(encoded, is_valid_utf8(text), "exactly valid UTF-8 is encoded");
  if (!encoded) return 0;
  check(bpe.decode(ids) == text, "decoding gives the text back");
  for (const TokenId id : ids) check(!bpe.is_special(id), "text gives no special token");
  if (size <= 4096) check(ids == encode_naively(bpe, text), "the ids are those of the definition");
  return 0;
}

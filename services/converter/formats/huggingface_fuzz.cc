// Any bytes as config.json (first byte even) or as an index of weights (odd).
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "converter/formats/huggingface_config.h"
#include "converter/formats/huggingface_files.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve::converter;
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 2 == 0) {
    ForeignHints hints;
    (void)parse_huggingface_config(text, "config.json", hints);
    (void)parse_generation_config(text, "generation_config.json", hints);
  } else {
    (void)parse_huggingface_index(text, "index.json");
  }
  return 0;
}

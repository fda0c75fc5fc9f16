#include "tokenizer/metrics.h"

namespace optserve::tokenizer {

TokenizerMetrics::TokenizerMetrics(Registry& registry)
    : texts_encoded(registry.counter("optserve_tokenizer_texts_encoded_total", "Prompts turned into ids")),
      bytes_encoded(registry.counter("optserve_tokenizer_encoded_bytes_total", "Bytes of prompts turned into ids")),
      pieces_decoded(registry.counter("optserve_tokenizer_pieces_decoded_total", "Pieces of output turned into text")),
      ids_decoded(registry.counter("optserve_tokenizer_ids_decoded_total", "Ids turned into text")),
      encode_errors(registry.counter("optserve_tokenizer_errors_total", "Items answered with an error",
                                     {{"operation", "encode"}})),
      decode_errors(registry.counter("optserve_tokenizer_errors_total", "Items answered with an error",
                                     {{"operation", "decode"}})) {}

}  // namespace optserve::tokenizer

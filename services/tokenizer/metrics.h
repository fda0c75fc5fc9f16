// What a tokenizer counts.
#pragma once

#include "metrics/metrics.h"

namespace optserve::tokenizer {

struct TokenizerMetrics {
  explicit TokenizerMetrics(Registry& registry);

  Counter texts_encoded;   // items, refused ones included
  Counter bytes_encoded;   // of their text
  Counter pieces_decoded;  // items, refused ones included
  Counter ids_decoded;
  Counter encode_errors;
  Counter decode_errors;
};

}  // namespace optserve::tokenizer

// Sizes of a small model for tests of files.
#pragma once

#include <cstdint>

#include "model_spec/opt_config.h"

namespace optserve::checkpoint::testing {

struct TinySizes {
  int64_t num_layers = 2;
  int64_t hidden = 16;  // the token table is as wide
  int64_t num_heads = 4;
  int64_t ffn = 32;
  int64_t vocab = 40;
  int64_t max_positions = 6;
};

inline model_spec::OptConfig tiny_config(const TinySizes& sizes = {}) {
  model_spec::OptConfig config;
  config.name = "tiny";
  config.num_layers = sizes.num_layers;
  config.hidden = config.embed_dim = sizes.hidden;
  config.num_heads = sizes.num_heads;
  config.ffn = sizes.ffn;
  config.vocab = config.vocab_real = sizes.vocab;
  config.max_positions = sizes.max_positions;
  return config;
}

}  // namespace optserve::checkpoint::testing

// For tests: a model that is small enough for every test.
#pragma once

#include "model_spec/opt_config.h"

namespace optserve::model_spec {

inline OptConfig tiny_config() {
  OptConfig config;
  config.name = "tiny";
  config.num_layers = 2;
  config.hidden = 64;
  config.num_heads = 4;
  config.ffn = 128;
  config.vocab = 104;
  config.vocab_real = 99;
  config.embed_dim = 64;
  config.max_positions = 64;
  return config;
}

}  // namespace optserve::model_spec

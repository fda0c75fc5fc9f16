// What a tokenizer is told at start.
#pragma once

#include <string>
#include <vector>

#include "base/config.h"

namespace optserve::tokenizer {

struct TokenizerOptions {
  CommonOptions common;
  std::vector<std::string> schedulers = {"tcp://127.0.0.1:5556"};
  std::vector<std::string> models;  // NAME=FOLDER of a sharded checkpoint
};

void add_options(ConfigParser& parser, TokenizerOptions& options);

}  // namespace optserve::tokenizer

// The options that say how tokens are drawn: those of the table of parameters, and rules of ids.
#pragma once

#include <string>
#include <vector>

#include "base/config.h"
#include "protocol/message_types.h"

namespace optserve::cli {

struct SamplingOptions {
  SamplingParams params;
  std::string profile = "default";
  std::vector<std::string> logit_bias;                 // "id=bias"
  std::string allowed_ids, stop_ids, top_p_reset_ids;  // "5,6,7"
  std::vector<std::string> bad_words;
  std::vector<std::string> bad_word_ids;  // each "5,6,7"
};

void add_options(ConfigParser& parser, SamplingOptions& options);
// Of the table, what changes the work of a token: for benchmarks, whose requests have a fixed length and seeds of their
// own.
void add_benchmarked_parameters(ConfigParser& parser, SamplingParams& params);
// Sets sampling, rules and bad words of a job. Throws CommandFailure naming the option that cannot be read.
void apply(const SamplingOptions& options, protocol::JobSpec& job);

// "2,100,7": ids with commas between them. Throws CommandFailure naming `option`.
std::vector<TokenId> read_ids(const char* option, const std::string& text);

}  // namespace optserve::cli

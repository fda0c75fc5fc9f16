// The options of sampling: the parameters of the sampling table, and rules about ids.
#pragma once

#include <string>
#include <vector>

#include "base/config.h"
#include "protocol/message_types.h"

namespace optserve::cli {

struct SamplingOptions {
  sampling::SamplingParams params;
  std::string profile = "default";
  std::vector<std::string> logit_bias;                 // "id=bias"
  std::string allowed_ids, stop_ids, top_p_reset_ids;  // "5,6,7"
  std::vector<std::string> bad_words;
  std::vector<std::string> bad_word_ids;  // each "5,6,7"
};

void add_options(ConfigParser& parser, SamplingOptions& options);
// The parameters of the table that change the work for a token, for benchmarks: their requests have fixed lengths and
// their own seeds.
void add_benchmarked_parameters(ConfigParser& parser, sampling::SamplingParams& params);
// Sets sampling, rules and bad words of a job. Throws CommandFailure naming an option that cannot be parsed.
void apply(const SamplingOptions& options, protocol::JobSpec& job);

// Parses ids separated by commas, as in "2,100,7". Throws CommandFailure naming `option`.
std::vector<TokenId> read_ids(const char* option, const std::string& text);

}  // namespace optserve::cli

// The options of a generation job, shared by `submit` and `generate`.
#pragma once

#include <string>
#include <vector>

#include "base/config.h"
#include "base/error.h"
#include "cli/commands/sampling_options.h"
#include "protocol/message_types.h"

namespace optserve::cli {

struct JobOptions {
  std::string text;         // positional prompt
  std::string prompt;       // --prompt
  std::string prompt_file;  // --prompt-file
  protocol::JobSpec defaults;
  std::string model;
  SamplingOptions sampling;
  std::string prompt_ids;  // "2,100,7", instead of text
  int max_new_tokens = defaults.max_new_tokens;
  std::vector<std::string> stop;
  bool include_stop = false;
  std::string key;
  std::string tenant;
  int priority = defaults.priority;
  int max_attempts = defaults.max_attempts;
  int64_t ttl_ms = defaults.ttl_ms;
  int64_t result_ttl_ms = defaults.result_ttl_ms;
  bool prompt_logprobs = false;
  int32_t prompt_best = 0;
  std::string group;
  int64_t delay_ms = defaults.delay_ms;
  int64_t queue_limit_ms = defaults.queue_ms;
  int64_t run_limit_ms = defaults.run_ms;
  bool cancel_on_disconnect = false;
  std::string traceparent;
};

void add_options(ConfigParser& parser, JobOptions& options);
// Only those options that say what is generated, without those for the prompt and the queue.
void add_generation_options(ConfigParser& parser, JobOptions& options);

// Reads the prompt from the place that was given, or from standard input unless that is a terminal. A final newline of
// a file or of standard input is removed. Throws CommandFailure.
std::string read_prompt(const JobOptions& options);

// Makes the job and checks it against the limits of the protocol, which needs no scheduler. The model may still be
// missing. Throws CommandFailure naming the wrong option.
protocol::JobSpec make_job(const JobOptions& options, std::string prompt);

}  // namespace optserve::cli

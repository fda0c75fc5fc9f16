#include "cli/commands/job_options.h"

#include <unistd.h>

#include <array>
#include <fstream>
#include <iostream>

#include "base/utf8.h"
#include "cli/commands/command.h"
#include "cli/commands/connection.h"
#include "protocol/validate.h"

namespace optserve::cli {
namespace {

// Far more than the longest prompt, so that a refusal can name the true size, but a limit for an endless pipe.
constexpr size_t kInputBytesMax = 64 << 20;

std::string read_stream(std::istream& stream, const std::string& name) {
  std::string text;
  std::array<char, 1 << 16> buffer{};
  while (stream && text.size() <= kInputBytesMax) {
    stream.read(buffer.data(), buffer.size());
    text.append(buffer.data(), static_cast<size_t>(stream.gcount()));
  }
  if (stream.bad()) throw CommandFailure{kExitFailed, "cannot read " + name};
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

// Messages carry text as UTF-8 only.
void check_utf8(const char* option, const std::string& text) {
  const size_t valid = valid_utf8_prefix(text);
  if (valid == text.size()) return;
  fail(refuse(ErrorCode::kBadRequest, std::string(option) + ": expected valid UTF-8, found other bytes at byte " +
                                          std::to_string(valid) + " of " + std::to_string(text.size())));
}

}  // namespace

void add_generation_options(ConfigParser& parser, JobOptions& options) {
  parser.begin_group("Prompt and output");
  parser.add("model", options.model, "Name of the model; not needed if only one is served");
  parser.add("max-new-tokens", options.max_new_tokens, "Most tokens of output")
      .also({"max-tokens", "output-length", "output-len", "request-output-len"});
  parser.add("stop", options.stop, "Text that ends the output and is not part of it; repeatable");
  parser.add("include-stop", options.include_stop, "Keep the stop text or stop id at the end of the output");
  add_options(parser, options.sampling);
}

void add_options(ConfigParser& parser, JobOptions& options) {
  parser.begin_group("Prompt and output");
  parser.add_positional("text", options.text,
                        "Prompt; instead of it use --prompt, --prompt-file, --prompt-ids or standard input", false);
  parser.add("prompt", options.prompt, "Prompt");
  parser.add("prompt-file", options.prompt_file, "File with the prompt; '-' is standard input");
  parser.add("prompt-ids", options.prompt_ids,
             "Prompt as token ids separated by commas, with the leading 2 (</s>) included");
  parser.add("prompt-logprobs", options.prompt_logprobs,
             "With --json: also give the log-probability of each prompt token");
  parser.add("prompt-best", options.prompt_best, "With --prompt-logprobs: also give this many of the best tokens there")
      .range(0, limits::kTopLogprobsMax);
  add_generation_options(parser, options);
  parser.begin_group("Queue");
  parser.add("key", options.key, "Submitting again with the same key gives the same job");
  parser.add("tenant", options.tenant, "Tenant whose share of the queue the job uses");
  parser.add("priority", options.priority, "0 to 9; jobs of higher priority start first");
  parser.add("max-attempts", options.max_attempts,
             "Number of attempts: the job is dead when the last one loses its worker");
  parser.add("group", options.group,
             "Group of the job; the jobs of a group can be watched and cancelled together ('optserve jobs group')");
  parser.add("delay-ms", options.delay_ms, "Time before which the job does not start");
  parser.add("ttl-ms", options.ttl_ms, "Time after which the job expires, counted from the end of its delay");
  parser.add("queue-limit-ms", options.queue_limit_ms, "Time within which the job must start; 0: only ttl-ms counts");
  parser.add("run-limit-ms", options.run_limit_ms, "Longest time of one attempt; 0: only ttl-ms counts");
  parser.add("cancel-on-disconnect", options.cancel_on_disconnect, "Cancel the job when no client follows it");
  parser.add("result-ttl-ms", options.result_ttl_ms, "Time for which the result can be fetched");
  parser.add("traceparent", options.traceparent,
             "Trace that the job belongs to (W3C Trace Context); all processes name it in their logs");
  parser.mark_rare({"traceparent", "prompt-ids", "prompt-logprobs", "max-attempts", "delay-ms", "queue-limit-ms",
                    "run-limit-ms", "cancel-on-disconnect", "result-ttl-ms"});
  parser.begin_group("Options");
}

std::string read_prompt(const JobOptions& options) {
  const int given =
      !options.text.empty() + !options.prompt.empty() + !options.prompt_file.empty() + !options.prompt_ids.empty();
  if (given > 1) {
    throw CommandFailure{kExitUsage,
                         "the prompt is given more than once, among: argument, --prompt, --prompt-file, --prompt-ids"};
  }
  if (!options.prompt_ids.empty()) return "";
  if (!options.text.empty()) return options.text;
  if (!options.prompt.empty()) return options.prompt;
  if (!options.prompt_file.empty() && options.prompt_file != "-") {
    std::ifstream file(options.prompt_file, std::ios::binary);
    if (!file) throw CommandFailure{kExitFailed, errno_error("open " + options.prompt_file).what()};
    return read_stream(file, options.prompt_file);
  }
  if (options.prompt_file.empty() && isatty(STDIN_FILENO) != 0) {
    throw CommandFailure{kExitUsage,
                         "there is no prompt: give it as an argument, with --prompt-file or on standard input"};
  }
  return read_stream(std::cin, "standard input");
}

protocol::JobSpec make_job(const JobOptions& options, std::string prompt) {
  protocol::JobSpec job = options.defaults;
  job.key = options.key;
  job.tenant = options.tenant;
  job.model = options.model;
  job.prompt = std::move(prompt);
  apply(options.sampling, job);
  job.prompt_ids = read_ids("prompt-ids", options.prompt_ids);
  job.max_new_tokens = options.max_new_tokens;
  job.stop = options.stop;
  job.include_stop = options.include_stop;
  job.priority = options.priority;
  job.max_attempts = options.max_attempts;
  job.ttl_ms = options.ttl_ms;
  job.result_ttl_ms = options.result_ttl_ms;
  job.group = options.group;
  job.delay_ms = options.delay_ms;
  job.queue_ms = options.queue_limit_ms;
  job.run_ms = options.run_limit_ms;
  if (options.cancel_on_disconnect) job.on_disconnect = protocol::OnDisconnect::kCancel;
  job.prompt_logprobs = options.prompt_logprobs;
  job.prompt_best = options.prompt_best;
  job.traceparent = options.traceparent;
  check_utf8("prompt", job.prompt);
  for (const std::string& stop : job.stop) check_utf8("stop", stop);
  for (const std::string& word : job.bad_words) check_utf8("bad-word", word);
  protocol::JobSpec checked = job;
  if (checked.key.empty()) checked.key = "chosen-by-the-client";
  if (checked.model.empty()) checked.model = "chosen-when-connected";
  if (const Status status = protocol::validate(checked); !status.ok()) fail(status.refusal());
  return job;
}

}  // namespace optserve::cli

// The parts that messages are made of. A struct lists its fields once, in fields(); the codec does the rest.
// Maps may gain optional fields at any time; a struct marked kPositional travels as an array and may only grow at its
// end.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "sampling/finish_reason.h"
#include "sampling/sampling_params.h"
#include "sampling/token_logprob.h"
#include "sampling/token_rules.h"

namespace optserve::protocol {

// Bytes that are not text; std::string fields are always valid UTF-8.
struct Bytes {
  std::vector<uint8_t> data;
  bool operator==(const Bytes&) const = default;
};

enum class JobState : uint8_t {
  kQueued = 1,     // accepted and durable, waiting for a group (or for its prompt's ids)
  kRunning = 2,    // leased to a worker group or converter
  kSucceeded = 3,  // terminal states from here on: the first one committed is the only one
  kFailed = 4,
  kCancelled = 5,
  kExpired = 6,
  kDead = 7,  // every attempt lost its worker
};
inline bool is_terminal(JobState state) { return state >= JobState::kSucceeded; }
std::string_view job_state_name(JobState state);

using optserve::FinishReason;
std::string_view finish_reason_name(FinishReason reason);

enum class JobKind : uint8_t { kGenerate = 1, kConvert = 2 };

// What happens to a job when the last connection that followed it has gone and none came back within the scheduler's
// grace time.
enum class OnDisconnect : uint8_t { kContinue = 1, kCancel = 2 };

// A conversion, executed by a converter process on paths that it can see.
struct ConvertSpec {
  std::string source;       // folder, file or glob of a foreign checkpoint
  std::string destination;  // folder to create
  std::string dtype;        // fp32, fp16, bf16 or keep
  int32_t shards = 0;       // 0: the converter chooses
  std::string quantize{};   // none (or empty), int8, int8-mse, fp8 or int4
  bool verify = false;      // compare the result with the source; the job fails if it is not what the source says

  template <class F>
  void fields(F&& f) {
    f("source", source), f("destination", destination), f("dtype", dtype), f("shards", shards),
        f("!quantize", quantize), f("!verify", verify);
  }
  bool operator==(const ConvertSpec&) const = default;
};

// What a client submits. Text or ids, not both; ids include the leading </s> (2).
struct JobSpec {
  std::string key;     // idempotency key: [A-Za-z0-9._-]{1,128}, unique per tenant
  std::string tenant;  // whose share of the queue it uses; "" is the default tenant
  JobKind kind = JobKind::kGenerate;
  std::string model;
  std::string prompt;
  std::vector<TokenId> prompt_ids;
  SamplingParams sampling;
  int32_t max_new_tokens = 16;
  std::vector<std::string> stop;
  bool prompt_logprobs = false;
  int32_t priority = 0;  // 0..9, higher first
  int32_t max_attempts = 3;
  int64_t ttl_ms = 600'000;           // total: from acceptance, or the end of its delay; then the job expires
  int64_t result_ttl_ms = 3'600'000;  // how long the result stays fetchable
  std::optional<ConvertSpec> convert;
  std::string group;     // jobs that are watched and cancelled together: [A-Za-z0-9._-]{0,128}, per tenant
  int64_t delay_ms = 0;  // not started before, from acceptance
  int64_t queue_ms = 0;  // until its first start, within ttl_ms; 0: no limit of its own
  int64_t run_ms = 0;    // of one attempt, from its start; 0: no limit of its own
  OnDisconnect on_disconnect = OnDisconnect::kContinue;
  TokenRules rules{};
  std::vector<std::string> bad_words{};  // text that the output must not contain, by its ids with and without a space
  bool include_stop = false;             // the stop string or stop id that ends the output is part of its text

  template <class F>
  void fields(F&& f) {
    f("key", key), f("tenant", tenant), f("kind", kind), f("model", model), f("prompt", prompt),
        f("prompt_ids", prompt_ids);
    for_each_parameter(sampling, [&f](const ParameterInfo& info, auto& field) { f(info.name, field); });
    f("max_new_tokens", max_new_tokens), f("stop", stop), f("prompt_logprobs", prompt_logprobs),
        f("priority", priority);
    f("max_attempts", max_attempts), f("ttl_ms", ttl_ms), f("result_ttl_ms", result_ttl_ms), f("convert", convert);
    f("group", group), f("delay_ms", delay_ms), f("queue_ms", queue_ms), f("run_ms", run_ms);
    f("on_disconnect", on_disconnect);
    rules.fields(f);
    f("bad_words", bad_words), f("include_stop", include_stop);
  }
  bool operator==(const JobSpec&) const = default;
};

// Milliseconds spent in each stage of a job.
struct Timings {
  int64_t encode_ms = 0, queue_ms = 0, first_token_ms = 0, run_ms = 0, total_ms = 0;

  template <class F>
  void fields(F&& f) {
    f("encode_ms", encode_ms), f("queue_ms", queue_ms), f("first_token_ms", first_token_ms), f("run_ms", run_ms);
    f("total_ms", total_ms);
  }
  bool operator==(const Timings&) const = default;
};

// One ended beam of a beam search.
struct Hypothesis {
  std::vector<TokenId> ids;  // all output ids, the one that ended it included
  float logprob = 0;         // sum over them
  float score = 0;           // by which hypotheses are in order
  FinishReason finish_reason = FinishReason::kNone;
  std::string text{};  // of the ids, in results only

  template <class F>
  void fields(F&& f) {
    f("ids", ids), f("logprob", logprob), f("score", score), f("finish_reason", finish_reason), f("text", text);
  }
  bool operator==(const Hypothesis&) const = default;
};

// How a job ended, or how far it is (state not terminal).
struct JobResult {
  JobId job;
  std::string key;
  JobState state = JobState::kQueued;
  FinishReason finish_reason = FinishReason::kNone;
  std::optional<ErrorCode> error;  // with `message`: why it did not succeed
  std::string message;
  std::string text;                    // output only, without the prompt and stop string
  std::vector<TokenId> ids;            // output ids, a final </s> included
  std::vector<float> prompt_logprobs;  // of prompt ids 1.., if asked for
  int32_t prompt_tokens = 0;
  int32_t attempts = 0;
  int64_t progress_done = 0;  // tokens, or bytes of a conversion
  int64_t progress_total = 0;
  Timings timings;
  std::string tenant;
  std::string group;
  std::vector<std::string> losses;  // why each lost attempt was lost, oldest first
  uint32_t position = 0;            // queued: jobs that would start before it
  int64_t eta_ms = -1;              // queued: expected wait until it starts; -1: not known
  // If asked for, of each output id: its log-probability, and the best ids in its place.
  std::vector<float> logprobs{};
  std::vector<std::vector<TokenLogprob>> best{};
  std::vector<Hypothesis> hypotheses{};  // of a beam search, best first; text and ids above are the first one's

  template <class F>
  void fields(F&& f) {
    f("job", job), f("key", key), f("state", state), f("finish_reason", finish_reason), f("error", error),
        f("message", message);
    f("text", text), f("ids", ids), f("prompt_logprobs", prompt_logprobs), f("prompt_tokens", prompt_tokens);
    f("attempts", attempts), f("progress_done", progress_done), f("progress_total", progress_total),
        f("timings", timings);
    f("tenant", tenant), f("group", group), f("losses", losses), f("position", position), f("eta_ms", eta_ms);
    f("logprobs", logprobs), f("best", best), f("hypotheses", hypotheses);
  }
  bool operator==(const JobResult&) const = default;
};

// A model as a tokenizer or worker serves it.
struct ModelInfo {
  std::string name;
  std::string vocabulary_digest;  // SHA-256 (hex) over vocabulary and merges: tokenizer and worker must agree
  std::string manifest_digest;    // SHA-256 (hex) of manifest.json
  int32_t context = 0;            // tokens of prompt and output together
  int32_t vocab = 0;              // ids are below this

  template <class F>
  void fields(F&& f) {
    f("name", name), f("vocabulary_digest", vocabulary_digest), f("manifest_digest", manifest_digest);
    f("context", context), f("vocab", vocab);
  }
  bool operator==(const ModelInfo&) const = default;
};

}  // namespace optserve::protocol

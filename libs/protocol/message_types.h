// The parts that messages are made of. A struct lists its fields once (fields.h); the codec does the rest. A struct
// travels as a map, which may gain optional fields at any time; one that is marked kPositional travels as an array and
// may only grow at its end.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "protocol/fields.h"
#include "sampling/finish_reason.h"
#include "sampling/sampling_params.h"
#include "sampling/token_logprob.h"
#include "sampling/token_rules.h"

// The ranges of enumerations of lower layers that are fields of messages; they must be in the namespaces of these.
namespace optserve {
constexpr protocol::WireRange wire_range(ErrorCode) { return {1, 15}; }
}  // namespace optserve
namespace optserve::sampling {
constexpr protocol::WireRange wire_range(SamplingProfile) { return {0, 2}; }
constexpr protocol::WireRange wire_range(FinishReason) { return {0, 5}; }
}  // namespace optserve::sampling

namespace optserve::protocol {

// Bytes that are not text; std::string fields are always valid UTF-8.
struct Bytes {
  std::vector<uint8_t> data;
  bool operator==(const Bytes&) const = default;
};

enum class JobState : uint8_t {
  kQueued = 1,     // accepted and durable, waiting for a group (or for its prompt's ids)
  kRunning = 2,    // leased to a worker group or converter
  kSucceeded = 3,  // from here on, states are terminal: the first one that is committed is final
  kFailed = 4,
  kCancelled = 5,
  kExpired = 6,
  kDead = 7,  // every attempt lost its worker
};
constexpr WireRange wire_range(JobState) { return {1, 7}; }
inline bool is_terminal(JobState state) { return state >= JobState::kSucceeded; }
std::string_view job_state_name(JobState state);

std::string_view finish_reason_name(sampling::FinishReason reason);

enum class JobKind : uint8_t { kGenerate = 1, kConvert = 2 };
constexpr WireRange wire_range(JobKind) { return {1, 2}; }
std::string_view job_kind_name(JobKind kind);

// What happens to a job when the last connection that followed it has ended and none has come back within the
// scheduler's grace period.
enum class OnDisconnect : uint8_t { kContinue = 1, kCancel = 2 };
constexpr WireRange wire_range(OnDisconnect) { return {1, 2}; }

// A conversion, which a converter process executes; the paths are those of its file system.
struct ConvertSpec {
  std::string source;                         // folder, file or glob of a foreign checkpoint
  std::string destination;                    // folder to create
  std::string dtype;                          // fp32, fp16, bf16 or keep
  int32_t shards = 0;                         // 0: the converter chooses
  std::string quantize{};                     // none (or empty), int8, int8-mse, fp8 or int4
  bool verify = false;                        // compare the result with the source; the job fails if they differ
  std::vector<std::string> unknown_fields{};  // as in JobSpec

  template <class F>
  void fields(F&& f) {
    OPTSERVE_VISIT(f, source, destination, dtype, shards);
    f("!quantize", quantize);
    f("!verify", verify);
  }
  bool operator==(const ConvertSpec&) const = default;
};

// What a client submits. Text or ids, not both; ids include the leading </s> (2).
struct JobSpec {
  std::string key;     // idempotency key: [A-Za-z0-9._-]{1,128}, unique within a tenant
  std::string tenant;  // whose share of the queue it uses; "" is the default tenant
  JobKind kind = JobKind::kGenerate;
  std::string model;
  std::string prompt;
  std::vector<TokenId> prompt_ids;
  sampling::SamplingParams sampling;
  int32_t max_new_tokens = 16;
  std::vector<std::string> stop;
  bool prompt_logprobs = false;
  int32_t prompt_best = 0;  // with prompt_logprobs: how many of the best ids at each place of the prompt
  int32_t priority = 0;     // 0..9, higher first
  int32_t max_attempts = 3;
  int64_t ttl_ms = 600'000;           // from acceptance, or from the end of its delay; then the job expires
  int64_t result_ttl_ms = 3'600'000;  // how long the result stays fetchable
  std::optional<ConvertSpec> convert;
  std::string group;     // jobs that are watched and cancelled together: [A-Za-z0-9._-]{0,128}, per tenant
  int64_t delay_ms = 0;  // time from acceptance before which it is not started
  int64_t queue_ms = 0;  // longest wait for its first start, within ttl_ms; 0: only ttl_ms applies
  int64_t run_ms = 0;    // longest duration of one attempt; 0: only ttl_ms applies
  OnDisconnect on_disconnect = OnDisconnect::kContinue;
  sampling::TokenRules rules{};
  std::vector<std::string> bad_words{};  // must not occur in the output, neither at its start nor after a space
  bool include_stop = false;             // whether the stop string or stop id that ends the output is part of its text
  // The trace that it belongs to, as read_traceparent() returns it, or "". A job is the same under any trace.
  std::string traceparent{};
  // Unknown names that came with it, a few at most; not on the wire. validate() refuses them, since ignoring a
  // parameter would give a different output than the one that was asked for.
  std::vector<std::string> unknown_fields{};

  template <class F>
  void fields(F&& f) {
    OPTSERVE_VISIT(f, key, tenant, kind, model, prompt, prompt_ids);
    sampling::for_each_parameter(sampling,
                                 [&f](const sampling::ParameterInfo& info, auto& field) { f(info.name, field); });
    OPTSERVE_VISIT(f, max_new_tokens, stop, prompt_logprobs, priority, max_attempts, ttl_ms, result_ttl_ms, convert,
                   group, delay_ms, queue_ms, run_ms, on_disconnect);
    rules.fields(f);
    OPTSERVE_VISIT(f, bad_words, include_stop, prompt_best, traceparent);
  }
  bool operator==(const JobSpec&) const = default;
};

// Milliseconds spent in each stage of a job.
struct Timings {
  int64_t encode_ms = 0, queue_ms = 0, first_token_ms = 0, run_ms = 0, total_ms = 0;

  OPTSERVE_FIELDS(encode_ms, queue_ms, first_token_ms, run_ms, total_ms)
  bool operator==(const Timings&) const = default;
};

// One finished beam of a beam search.
struct Hypothesis {
  std::vector<TokenId> ids;  // all output ids, including the one that ended it
  float logprob = 0;         // sum of their log-probabilities
  float score = 0;           // hypotheses are ordered by it, highest first
  sampling::FinishReason finish_reason = sampling::FinishReason::kNone;
  std::string text{};  // of the ids, in results only

  OPTSERVE_FIELDS(ids, logprob, score, finish_reason, text)
  bool operator==(const Hypothesis&) const = default;
};

// One attempt at a job. Times count from the job's acceptance.
struct JobAttempt {
  static constexpr bool kPositional = true;
  int32_t number = 0;     // from 1; reused after an attempt that does not count, as on a worker that is stopping
  int64_t began_ms = 0;   // when it was given to a worker or converter
  int64_t ended_ms = -1;  // when the attempt was lost or the job ended; -1: it goes on
  std::string service{};  // the name of the worker or converter
  std::string loss{};     // why it was lost; empty if it was not

  OPTSERVE_FIELDS(number, began_ms, ended_ms, service, loss)
  bool operator==(const JobAttempt&) const = default;
};

// How a job ended or, while its state is not terminal, how far it is.
struct JobResult {
  JobId job;
  std::string key;
  JobState state = JobState::kQueued;
  sampling::FinishReason finish_reason = sampling::FinishReason::kNone;
  std::optional<ErrorCode> error;  // why it did not succeed; `message` explains it to people
  std::string message;
  std::string text;                    // of the output alone, without prompt and stop string
  std::vector<TokenId> ids;            // of the output, including a final </s>
  std::vector<float> prompt_logprobs;  // of the prompt's ids from the second one on, if asked for
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
  // If asked for: the log-probability of each output id, and the best ids at its position.
  std::vector<float> logprobs{};
  std::vector<std::vector<sampling::TokenLogprob>> best{};
  std::vector<Hypothesis> hypotheses{};  // of a beam search, best first; text and ids above are those of the first
  std::vector<TokenId> prompt_ids{};     // with prompt_logprobs: all ids of the prompt
  // With prompt_best: for each of the prompt_logprobs, the best ids at its position.
  std::vector<std::vector<sampling::TokenLogprob>> prompt_best{};
  JobKind kind = JobKind::kGenerate;
  std::string traceparent{};  // as submitted
  // The beginning of a text prompt, as much as the scheduler keeps (--prompt-bytes-kept). Only in answers to GetJob.
  std::string prompt{};
  std::vector<JobAttempt> tries{};  // oldest first, only those since the scheduler's last start

  OPTSERVE_FIELDS(job, key, state, finish_reason, error, message, text, ids, prompt_logprobs, prompt_tokens, attempts,
                  progress_done, progress_total, timings, tenant, group, losses, position, eta_ms, logprobs, best,
                  hypotheses, prompt_ids, prompt_best, kind, traceparent, prompt, tries)
  bool operator==(const JobResult&) const = default;
};

// The vocabulary digest of a model whose checkpoint has no tokenizer, so that it serves only token ids.
inline constexpr std::string_view kNoVocabulary = "none";

// A model that a tokenizer or worker serves.
struct ModelInfo {
  std::string name;
  std::string vocabulary_digest;  // SHA-256 (hex) over its files, or kNoVocabulary: tokenizer and worker must agree
  std::string manifest_digest;    // SHA-256 (hex) of manifest.json
  int32_t context = 0;            // tokens of prompt and output together
  int32_t vocab = 0;              // ids are below this

  OPTSERVE_FIELDS(name, vocabulary_digest, manifest_digest, context, vocab)
  bool operator==(const ModelInfo&) const = default;
};

}  // namespace optserve::protocol

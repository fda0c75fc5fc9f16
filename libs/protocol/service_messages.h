// Between the scheduler and its tokenizers, worker groups and converters. Services connect and register; the scheduler
// never opens a connection.
#pragma once

#include "protocol/message_types.h"

namespace optserve::protocol {

enum class ServiceKind : uint8_t { kTokenizer = 1, kWorker = 2, kConverter = 3 };
constexpr WireRange wire_range(ServiceKind) { return {1, 3}; }
std::string_view service_kind_name(ServiceKind kind);

// service -> scheduler: the first message of a connection, sent again whenever the scheduler does not know the sender.
// A service drops its leases before it registers, so the scheduler queues again whatever was leased to this instance.
struct Register {
  InstanceId instance;  // random, new at each start of the process
  ServiceKind kind = ServiceKind::kTokenizer;
  std::string name;               // for people: host and process id
  std::string build;              // version of the program
  std::vector<ModelInfo> models;  // the models that it serves; empty for a converter
  int32_t max_sequences = 0;      // how many jobs it may hold at a time, running or leased ahead
  int64_t kv_tokens = 0;          // of a worker: tokens that fit into the KV cache
  int32_t world = 1;              // of a worker: tensor-parallel size
  int32_t slots = 0;  // how many of these jobs it computes at a time; the others wait in it. 0: max_sequences
  OPTSERVE_FIELDS(instance, kind, name, build, models, max_sequences, kv_tokens, world, slots)
  bool operator==(const Register&) const = default;
};

// scheduler -> service. A different term than before means that the scheduler has restarted, and that all leases of the
// earlier term are void.
struct Registered {
  uint64_t term = 0;
  OPTSERVE_FIELDS(term)
  bool operator==(const Registered&) const = default;
};

// service -> scheduler, every second; answered by Pong{number, term}.
struct Heartbeat {
  InstanceId instance;
  uint64_t number = 0;
  uint64_t steps = 0;     // work done since the start, which does not grow in a worker that is alive but stuck
  int32_t running = 0;    // jobs that the service holds
  bool draining = false;  // the service wants no new work
  int32_t capacity = 0;   // how many jobs it wants from this scheduler at a time; 0: max_sequences of Register
  OPTSERVE_FIELDS(instance, number, steps, running, draining, capacity)
  bool operator==(const Heartbeat&) const = default;
};

// service -> scheduler: the service leaves now; the scheduler queues again whatever it still held.
struct Goodbye {
  InstanceId instance;
  OPTSERVE_FIELDS(instance)
  bool operator==(const Goodbye&) const = default;
};

// --- Tokenizer. `ticket` is the number that the scheduler gave to a question; it drops an answer whose ticket it does
// not know.

struct EncodeItem {
  static constexpr bool kPositional = true;
  uint64_t ticket = 0;
  std::string model;
  std::string text;
  std::vector<std::string> bad_words{};
  std::string traceparent{};  // of the job
  OPTSERVE_FIELDS(ticket, model, text, bad_words, traceparent)
  bool operator==(const EncodeItem&) const = default;
};
struct Encode {  // scheduler -> tokenizer
  std::vector<EncodeItem> items;
  OPTSERVE_FIELDS(items)
  bool operator==(const Encode&) const = default;
};
struct EncodedItem {
  static constexpr bool kPositional = true;
  uint64_t ticket = 0;
  std::vector<TokenId> ids;  // begins with the model's leading id; at most the first limits::kContextTokensMax
  uint32_t count = 0;        // how many ids there are in all, including the leading one
  std::optional<ErrorCode> error;
  std::string message;
  // For each word, its ids at the start of a text and, if they differ, its ids after a space.
  std::vector<std::vector<TokenId>> bad_words{};
  OPTSERVE_FIELDS(ticket, ids, count, error, message, bad_words)
  bool operator==(const EncodedItem&) const = default;
};
struct Encoded {  // tokenizer -> scheduler
  std::vector<EncodedItem> items;
  OPTSERVE_FIELDS(items)
  bool operator==(const Encoded&) const = default;
};

struct DecodeItem {
  static constexpr bool kPositional = true;
  uint64_t ticket = 0;
  std::string model;
  Bytes state;  // state of the text streamer, from the job's previous answer; empty at the start
  std::vector<TokenId> ids;
  std::vector<std::string> stop;
  bool flush = false;  // the job's last question: the answer has all text, including what the streamer held back
  bool include_stop = false;
  OPTSERVE_FIELDS(ticket, model, state, ids, stop, flush, include_stop)
  bool operator==(const DecodeItem&) const = default;
};
struct Decode {  // scheduler -> tokenizer
  std::vector<DecodeItem> items;
  OPTSERVE_FIELDS(items)
  bool operator==(const Decode&) const = default;
};
struct DecodedItem {
  static constexpr bool kPositional = true;
  uint64_t ticket = 0;
  Bytes state;
  std::string text;
  int32_t stop = -1;  // index of the stop string that ended the text; -1: none
  std::optional<ErrorCode> error;
  std::string message;
  uint32_t stop_ids = 0;  // with a stop string: the number of ids up to the one that completed it
  OPTSERVE_FIELDS(ticket, state, text, stop, error, message, stop_ids)
  bool operator==(const DecodedItem&) const = default;
};
struct Decoded {  // tokenizer -> scheduler
  std::vector<DecodedItem> items;
  OPTSERVE_FIELDS(items)
  bool operator==(const Decoded&) const = default;
};

// --- Worker group. A lease is named by its number; numbers are never used twice within a term, and every message
// carries the term.

struct DispatchItem {
  uint64_t lease = 0;
  JobId job;
  std::string model;
  std::vector<TokenId> tokens;  // the prompt, then tokens that an earlier attempt generated
  int32_t prompt_tokens = 0;
  int32_t max_new_tokens = 0;  // counted from the end of the prompt
  sampling::SamplingParams sampling;
  bool prompt_logprobs = false;
  int64_t remaining_ms = 0;  // what is left of the job's time, after which nobody waits for it; 0: not given
  sampling::TokenRules rules{};
  std::string cache_salt{};   // jobs with different salts share nothing in the worker's prefix cache
  int32_t prompt_best = 0;    // with prompt_logprobs: how many of the best ids at each place of the prompt
  std::string traceparent{};  // of the job
  template <class F>
  void fields(F&& f) {
    OPTSERVE_VISIT(f, lease, job, model, tokens, prompt_tokens, max_new_tokens);
    sampling::for_each_parameter(sampling,
                                 [&f](const sampling::ParameterInfo& info, auto& field) { f(info.name, field); });
    OPTSERVE_VISIT(f, prompt_logprobs, remaining_ms);
    rules.fields(f);
    OPTSERVE_VISIT(f, cache_salt, prompt_best, traceparent);
  }
  bool operator==(const DispatchItem&) const = default;
};
struct Dispatch {  // scheduler -> worker
  uint64_t term = 0;
  std::vector<DispatchItem> items;
  OPTSERVE_FIELDS(term, items)
  bool operator==(const Dispatch&) const = default;
};

// scheduler -> worker or converter: stop this work (cancelled, expired, ended by a stop string, or leased elsewhere).
struct Revoke {
  uint64_t term = 0;
  std::vector<uint64_t> leases;
  OPTSERVE_FIELDS(term, leases)
  bool operator==(const Revoke&) const = default;
};

// worker -> scheduler: the tokens of one step, one entry in each array per token. `finished` is a FinishReason; it is 0
// while the job goes on.
struct Tokens {
  uint64_t term = 0;
  std::vector<uint64_t> leases;
  std::vector<uint32_t> positions;  // index of the token among the job's output tokens
  std::vector<TokenId> tokens;
  std::vector<uint8_t> finished;
  // Both are empty if none of the jobs asks for them.
  std::vector<float> logprobs{};
  std::vector<std::vector<sampling::TokenLogprob>> best{};
  OPTSERVE_FIELDS(term, leases, positions, tokens, finished, logprobs, best)
  bool operator==(const Tokens&) const = default;
};

// worker -> scheduler: sent before the job's first token if the job asked for it.
struct PromptLogprobs {
  uint64_t term = 0;
  uint64_t lease = 0;
  uint32_t start = 0;  // prompt position of the first value; position 0 has none
  std::vector<float> logprobs;
  std::vector<std::vector<sampling::TokenLogprob>> best{};  // one list for each value; empty if none were asked for
  OPTSERVE_FIELDS(term, lease, start, logprobs, best)
  bool operator==(const PromptLogprobs&) const = default;
};

// worker -> scheduler: sent before the last token of a beam search. At most beam_width hypotheses, best first; the
// job's tokens are those of the first one.
struct Hypotheses {
  uint64_t term = 0;
  uint64_t lease = 0;
  std::vector<Hypothesis> hypotheses;
  OPTSERVE_FIELDS(term, lease, hypotheses)
  bool operator==(const Hypotheses&) const = default;
};

// worker or converter -> scheduler: this lease ends without a result. With `transient`, another attempt may succeed.
struct LeaseFailed {
  uint64_t term = 0;
  uint64_t lease = 0;
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
  bool transient = false;
  OPTSERVE_FIELDS(term, lease, code, message, transient)
  bool operator==(const LeaseFailed&) const = default;
};

// --- Converter.

struct ConvertDispatch {  // scheduler -> converter
  uint64_t term = 0;
  uint64_t lease = 0;
  JobId job;
  ConvertSpec spec;
  std::string traceparent{};  // of the job
  OPTSERVE_FIELDS(term, lease, job, spec, traceparent)
  bool operator==(const ConvertDispatch&) const = default;
};
struct ConvertProgress {  // converter -> scheduler; bytes_done equals bytes_total only in the last one
  uint64_t term = 0;
  uint64_t lease = 0;
  int64_t bytes_done = 0;
  int64_t bytes_total = 0;
  std::string message;  // in the last one: what was written
  bool finished = false;
  OPTSERVE_FIELDS(term, lease, bytes_done, bytes_total, message, finished)
  bool operator==(const ConvertProgress&) const = default;
};

}  // namespace optserve::protocol

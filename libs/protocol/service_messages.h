// Between the scheduler and its tokenizers, worker groups and converters. Services connect and register; the scheduler
// never dials.
#pragma once

#include "protocol/message_types.h"

namespace optserve::protocol {

enum class ServiceKind : uint8_t { kTokenizer = 1, kWorker = 2, kConverter = 3 };
std::string_view service_kind_name(ServiceKind kind);

// service -> scheduler, first message of a connection and again whenever the scheduler does not know the sender.
// The sender holds no lease: it dropped them before, and the scheduler requeues whatever was leased to this instance.
struct Register {
  InstanceId instance;  // random, new at each start of the process
  ServiceKind kind = ServiceKind::kTokenizer;
  std::string name;               // for people: host and pid
  std::string build;              // version of the program
  std::vector<ModelInfo> models;  // served models; empty for a converter
  int32_t max_sequences = 0;      // jobs it may hold at a time: a worker's running ones and those leased ahead
  int64_t kv_tokens = 0;          // worker: tokens that fit the KV cache
  int32_t world = 1;              // worker: tensor-parallel size
  template <class F>
  void fields(F&& f) {
    f("instance", instance), f("kind", kind), f("name", name), f("build", build), f("models", models);
    f("max_sequences", max_sequences), f("kv_tokens", kv_tokens), f("world", world);
  }
  bool operator==(const Register&) const = default;
};

// scheduler -> service. A term other than the one seen before means a new scheduler: leases of the old one are void.
struct Registered {
  uint64_t term = 0;
  template <class F>
  void fields(F&& f) {
    f("term", term);
  }
  bool operator==(const Registered&) const = default;
};

// service -> scheduler, every second; answered by Pong{number, term}.
struct Heartbeat {
  InstanceId instance;
  uint64_t number = 0;
  uint64_t steps = 0;     // work done since start: a worker that is alive but stuck does not move it
  int32_t running = 0;    // jobs it holds
  bool draining = false;  // wants no new work
  int32_t capacity = 0;   // jobs that it wants from this scheduler at a time; 0: max_sequences of Register
  template <class F>
  void fields(F&& f) {
    f("instance", instance), f("number", number), f("steps", steps), f("running", running), f("draining", draining);
    f("capacity", capacity);
  }
  bool operator==(const Heartbeat&) const = default;
};

// service -> scheduler: leaving now; whatever it still held is requeued.
struct Goodbye {
  InstanceId instance;
  template <class F>
  void fields(F&& f) {
    f("instance", instance);
  }
  bool operator==(const Goodbye&) const = default;
};

// --- tokenizer
// -------------------------------------------------------------------------------------------------------------
// `ticket` is the scheduler's number of one question; an answer with an unknown ticket is dropped.

struct EncodeItem {
  static constexpr bool kPositional = true;
  uint64_t ticket = 0;
  std::string model;
  std::string text;
  std::vector<std::string> bad_words{};
  template <class F>
  void fields(F&& f) {
    f("ticket", ticket), f("model", model), f("text", text), f("bad_words", bad_words);
  }
  bool operator==(const EncodeItem&) const = default;
};
struct Encode {  // scheduler -> tokenizer
  std::vector<EncodeItem> items;
  template <class F>
  void fields(F&& f) {
    f("items", items);
  }
  bool operator==(const Encode&) const = default;
};
struct EncodedItem {
  static constexpr bool kPositional = true;
  uint64_t ticket = 0;
  std::vector<TokenId> ids;  // begins with the model's leading id; at most limits::kContextTokensMax are sent
  uint32_t count = 0;        // how many ids there are in all, the leading one included
  std::optional<ErrorCode> error;
  std::string message;
  std::vector<std::vector<TokenId>>
      bad_words{};  // of each word its ids at a begin and after a space, where they differ
  template <class F>
  void fields(F&& f) {
    f("ticket", ticket), f("ids", ids), f("count", count), f("error", error), f("message", message);
    f("bad_words", bad_words);
  }
  bool operator==(const EncodedItem&) const = default;
};
struct Encoded {  // tokenizer -> scheduler
  std::vector<EncodedItem> items;
  template <class F>
  void fields(F&& f) {
    f("items", items);
  }
  bool operator==(const Encoded&) const = default;
};

struct DecodeItem {
  static constexpr bool kPositional = true;
  uint64_t ticket = 0;
  std::string model;
  Bytes state;  // the streamer's, from the job's previous answer; empty at the start
  std::vector<TokenId> ids;
  std::vector<std::string> stop;
  bool flush = false;  // last call of the job: give out what is held back
  bool include_stop = false;
  template <class F>
  void fields(F&& f) {
    f("ticket", ticket), f("model", model), f("state", state), f("ids", ids), f("stop", stop), f("flush", flush);
    f("include_stop", include_stop);
  }
  bool operator==(const DecodeItem&) const = default;
};
struct Decode {  // scheduler -> tokenizer
  std::vector<DecodeItem> items;
  template <class F>
  void fields(F&& f) {
    f("items", items);
  }
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
  uint32_t stop_ids = 0;  // with a stop string: how many of the ids it took, up to the one that completed it
  template <class F>
  void fields(F&& f) {
    f("ticket", ticket), f("state", state), f("text", text), f("stop", stop), f("error", error), f("message", message);
    f("stop_ids", stop_ids);
  }
  bool operator==(const DecodedItem&) const = default;
};
struct Decoded {  // tokenizer -> scheduler
  std::vector<DecodedItem> items;
  template <class F>
  void fields(F&& f) {
    f("items", items);
  }
  bool operator==(const Decoded&) const = default;
};

// --- worker group
// ---------------------------------------------------------------------------------------------------------- A lease is
// named by its number; numbers are never reused within a term, and every message carries the term.

struct DispatchItem {
  uint64_t lease = 0;
  JobId job;
  std::string model;
  std::vector<TokenId> tokens;  // prompt, then tokens that an earlier attempt generated
  int32_t prompt_tokens = 0;
  int32_t max_new_tokens = 0;  // counted from the end of the prompt
  SamplingParams sampling;
  bool prompt_logprobs = false;
  int64_t remaining_ms = 0;  // the job's time that is left: afterwards nobody waits for it; 0: not told
  TokenRules rules{};
  std::string cache_salt{};  // jobs of different salts share nothing in the worker's prefix cache
  template <class F>
  void fields(F&& f) {
    f("lease", lease), f("job", job), f("model", model), f("tokens", tokens), f("prompt_tokens", prompt_tokens);
    f("max_new_tokens", max_new_tokens);
    for_each_parameter(sampling, [&f](const ParameterInfo& info, auto& field) { f(info.name, field); });
    f("prompt_logprobs", prompt_logprobs), f("remaining_ms", remaining_ms);
    rules.fields(f);
    f("cache_salt", cache_salt);
  }
  bool operator==(const DispatchItem&) const = default;
};
struct Dispatch {  // scheduler -> worker
  uint64_t term = 0;
  std::vector<DispatchItem> items;
  template <class F>
  void fields(F&& f) {
    f("term", term), f("items", items);
  }
  bool operator==(const Dispatch&) const = default;
};

// scheduler -> worker or converter: stop this work (cancelled, expired, ended by a stop string, or leased elsewhere).
struct Revoke {
  uint64_t term = 0;
  std::vector<uint64_t> leases;
  template <class F>
  void fields(F&& f) {
    f("term", term), f("leases", leases);
  }
  bool operator==(const Revoke&) const = default;
};

// worker -> scheduler: tokens of one step, entry i in each array. `finished` is a FinishReason, 0 while the job goes
// on.
struct Tokens {
  uint64_t term = 0;
  std::vector<uint64_t> leases;
  std::vector<uint32_t> positions;  // index of the token among the job's output tokens
  std::vector<TokenId> tokens;
  std::vector<uint8_t> finished;
  // Empty if no entry's job asks for them.
  std::vector<float> logprobs{};
  std::vector<std::vector<TokenLogprob>> best{};
  template <class F>
  void fields(F&& f) {
    f("term", term), f("leases", leases), f("positions", positions), f("tokens", tokens), f("finished", finished);
    f("logprobs", logprobs), f("best", best);
  }
  bool operator==(const Tokens&) const = default;
};

// worker -> scheduler, before the job's first token, if the job asked for it.
struct PromptLogprobs {
  uint64_t term = 0;
  uint64_t lease = 0;
  uint32_t start = 0;  // prompt position of the first value (1 is the first that has one)
  std::vector<float> logprobs;
  template <class F>
  void fields(F&& f) {
    f("term", term), f("lease", lease), f("start", start), f("logprobs", logprobs);
  }
  bool operator==(const PromptLogprobs&) const = default;
};

// worker -> scheduler, before the last token of a beam search: at most beam_width, best first. The job's tokens are
// those of the first.
struct Hypotheses {
  uint64_t term = 0;
  uint64_t lease = 0;
  std::vector<Hypothesis> hypotheses;
  template <class F>
  void fields(F&& f) {
    f("term", term), f("lease", lease), f("hypotheses", hypotheses);
  }
  bool operator==(const Hypotheses&) const = default;
};

// worker or converter -> scheduler: this lease ends without a result. `transient`: another attempt may succeed.
struct LeaseFailed {
  uint64_t term = 0;
  uint64_t lease = 0;
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
  bool transient = false;
  template <class F>
  void fields(F&& f) {
    f("term", term), f("lease", lease), f("code", code), f("message", message), f("transient", transient);
  }
  bool operator==(const LeaseFailed&) const = default;
};

// --- converter
// -------------------------------------------------------------------------------------------------------------

struct ConvertDispatch {  // scheduler -> converter
  uint64_t term = 0;
  uint64_t lease = 0;
  JobId job;
  ConvertSpec spec;
  template <class F>
  void fields(F&& f) {
    f("term", term), f("lease", lease), f("job", job), f("spec", spec);
  }
  bool operator==(const ConvertDispatch&) const = default;
};
struct ConvertProgress {  // converter -> scheduler; done == total only in the last one
  uint64_t term = 0;
  uint64_t lease = 0;
  int64_t bytes_done = 0;
  int64_t bytes_total = 0;
  std::string message;  // of the last one: what was written
  bool finished = false;
  template <class F>
  void fields(F&& f) {
    f("term", term), f("lease", lease), f("bytes_done", bytes_done), f("bytes_total", bytes_total),
        f("message", message);
    f("finished", finished);
  }
  bool operator==(const ConvertProgress&) const = default;
};

}  // namespace optserve::protocol

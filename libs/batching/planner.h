// Iteration-level scheduling on rank 0: continuous batching over paged KV blocks, chunked prefill, preemption with
// recomputation. It is pure: it uses no clock, socket, device or draft source. plan() may run up to `pipeline_depth`
// steps ahead of apply().
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "batching/step_plan.h"
#include "sampling/finish_reason.h"
#include "sampling/packed_rules.h"
#include "sampling/sampling_params.h"

namespace optserve::batching {

using SequenceId = uint64_t;  // chosen by the caller, unique among live sequences

// One generation, as the caller asks for it.
struct SequenceRequest {
  SequenceId id = 0;
  // The prompt, and after it the tokens that an earlier attempt has generated (a forced prefix). Not empty.
  std::vector<TokenId> tokens;
  int32_t prompt_tokens = 0;   // how many of `tokens` are the prompt
  int32_t max_new_tokens = 0;  // counted from prompt_tokens, so that a forced prefix counts
  // With a beam_width above 1 nothing is reported before the end, which reports the tokens of the best hypothesis.
  // Inside the planner each beam is a sequence with one new token. Beams share the tokens before it if there is a
  // prefix cache.
  sampling::SamplingParams sampling;
  sampling::TokenRules rules{};
  bool prompt_logprobs = false;  // report log p of tokens[1..) as they are processed
  int32_t prompt_best = 0;       // with prompt_logprobs: how many of the best tokens to report at each position
  std::string cache_salt{};      // sequences share blocks of the prefix cache only if their salts are equal
};

struct PlannerOptions {
  int32_t num_blocks = 0;  // KV blocks of the pool
  int32_t block_tokens = 16;
  int32_t max_sequences = 0;    // slots
  int32_t max_step_tokens = 0;  // rows of one step: decode rows first, prefill chunks fill the rest
  int32_t max_context = 2048;   // tokens of one sequence, prompt and output
  int32_t pipeline_depth = 2;   // most steps that are planned but not applied
  TokenId eos = 2;
  std::vector<TokenId> more_eos{};  // further ids that end a text
  TokenId pad = 1;                  // never drawn; with `vocab` it decides whether a request leaves any token to draw
  int64_t vocab = 0;                // ids that can be drawn are below this; 0: not known
  // Sequences share KV blocks that hold the same tokens. For this, the blocks of ended sequences are kept until their
  // memory is needed.
  bool prefix_cache = false;
  // The maximum number of tokens drafted at a time for a sequence whose text repeats itself; 0: none. Tokens are
  // drafted only while few sequences run, since only then do more rows make a step hardly slower.
  int32_t draft_tokens = 0;
};

inline bool ends_text(const PlannerOptions& options, TokenId id) {
  return id == options.eos || std::ranges::find(options.more_eos, id) != options.more_eos.end();
}

// An ended beam of a beam search.
struct Hypothesis {
  std::vector<TokenId> tokens{};  // all tokens after the prompt, including the one that ended it
  float logprob = 0;              // the sum over the tokens that the search has added
  double score = 0;               // orders the hypotheses
  sampling::FinishReason finished = sampling::FinishReason::kLength;
};

// What happened to a sequence in one step.
struct SequenceEvent {
  SequenceId id = 0;
  int32_t position = 0;          // index of `token` in the sequence
  std::optional<TokenId> token;  // absent if the event reports only log-probabilities or the end
  float logprob = 0;
  std::vector<sampling::TokenLogprob> best{};      // tokens at the position of `token`, if the request asks for them
  std::optional<sampling::FinishReason> finished;  // set in the last event of the sequence
  std::vector<float> prompt_logprobs;              // of the positions from logprobs_start on
  std::vector<std::vector<sampling::TokenLogprob>> prompt_best{};  // at these positions, if the request asks for them
  int32_t logprobs_start = 0;
  std::vector<Hypothesis> hypotheses{};  // in the last event of a beam search, which reports the tokens of the first
  // Set if Planner::add() refused the sequence (everything else but `id` is then empty) or, with kError, if the
  // request's own rules left nothing to draw.
  std::optional<Refusal> refused{};
};

// A question to a draft source: which tokens follow those of `request`, which has all known tokens?
struct DraftQuery {
  const SequenceRequest* request = nullptr;
  int32_t most = 0;  // the maximum number of useful guesses, above 0
};
// The answers to the queries, in their order. Ids beyond DraftQuery::most are not used.
using Guesses = std::vector<std::vector<TokenId>>;

struct PlannerStats {
  int32_t waiting = 0, running = 0, free_blocks = 0, num_blocks = 0;
  uint64_t preemptions = 0, planned_steps = 0, prefill_tokens = 0, decode_tokens = 0;
  uint64_t shared_tokens = 0;    // found in the prefix cache instead of being computed
  uint64_t drafted_tokens = 0;   // from the text itself or a draft source
  uint64_t accepted_tokens = 0;  // drafted tokens that were drawn as drafted
};

class Planner {
 public:
  explicit Planner(const PlannerOptions& options);
  ~Planner();

  // Refuses what can never run: a sequence that is empty, longer than the context, needs more blocks than the pool has,
  // or has the id of a live one; a sequence whose rules leave no first token to draw; and a beam search with too many
  // ids that end it, without a token to search for, or with log-probabilities of the prompt.
  Status add(SequenceRequest request);
  // Ends a sequence; false if it is not live. Its slot is released by the next plan. No event is reported.
  bool cancel(SequenceId id);
  // True if there is something left to plan.
  bool has_work() const;
  // False while pipeline_depth steps are planned but not applied.
  bool may_plan() const;
  // The questions to a draft source before the next step, about sequences whose text does not repeat itself; none while
  // many sequences run. Valid until the next call of the planner, which must be plan() with the answers.
  std::vector<DraftQuery> draft_queries();
  // The next step; nullopt if there is no work, or none that can run before a pending result is applied. With
  // `guesses`, the answers to draft_queries(), a sequence whose newest token is not known yet is left out of this step,
  // so that guesses can follow that token in the next one.
  std::optional<StepPlan> plan(std::optional<Guesses> guesses = std::nullopt);
  // Events of a finished step. Results are applied in step order.
  std::vector<SequenceEvent> apply(const StepResult& result);
  // For each answer of a draft source in the step applied last: how many ids were drawn as guessed.
  const std::vector<int32_t>& accepted_guesses() const;

  // Steps that are planned but not applied.
  int32_t in_flight() const;
  PlannerStats stats() const;
  // Says what is wrong with the bookkeeping; empty if nothing is. Tests call it after every step.
  std::string check_invariants() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace optserve::batching

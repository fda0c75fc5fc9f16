// The internals of the planner: what it keeps about sequences, and about steps that are planned but not applied.
#pragma once

#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/check.h"
#include "batching/beam_search.h"
#include "batching/block_allocator.h"
#include "batching/planner.h"
#include "batching/sequence.h"

namespace optserve::batching {

// What a planned step will report about one sequence.
struct PendingItem {
  uint64_t serial = 0;
  int32_t slot = 0;
  bool sample = false;
  bool last = false;  // ends a sequence that has nothing to draw
  std::vector<TokenId> drafts{};
  bool from_source = false;    // the drafts are from the draft source, not from the text
  int32_t num_targets = 0;     // log-probability rows asked for, placeholders included
  int32_t first_target = 0;    // index of the first row with a target
  int32_t logprobs_start = 0;  // the position whose log-probability that row gives
};

struct PendingStep {
  uint64_t step = 0;
  std::vector<PendingItem> items;
};

// A step while it is being planned.
struct NewStep {
  StepPlan plan;
  PendingStep pending;
  int32_t rows_left = 0;
  bool preempted = false;
};

// What is drafted for a sequence.
struct Draft {
  std::vector<TokenId> ids{};
  int32_t most = 0;          // the maximum number of ids for which the step has rows
  bool from_source = false;  // asked of the draft source rather than found in the text
  bool waits = false;        // the sequence is left out of the step until its newest token is known
};
using Drafts = std::unordered_map<uint64_t, Draft>;  // by the sequences' serial numbers

// A beam search and its current round.
struct BeamRun {
  SequenceRequest request;
  BeamSearch search;
  uint64_t age = 0;
  std::vector<std::vector<sampling::TokenLogprob>> candidates{};  // of each running beam
  size_t missing = 0;                                             // beams whose candidates are not known yet
};

struct Planner::Impl {
  using Sequences = std::list<Sequence>;
  using Iterator = Sequences::iterator;

  explicit Impl(const PlannerOptions& o) : options(o), pool(o.num_blocks) {
    check(o.block_tokens > 0 && o.max_sequences > 0 && o.max_context > 0 && o.pipeline_depth > 0, "planner options");
    check(o.max_step_tokens >= o.max_sequences, "a step has room for one row of every sequence");
    for (int32_t slot = o.max_sequences - 1; slot >= 0; --slot) free_slots.push_back(slot);
  }

  Status admissible(const SequenceRequest& request) const;
  Status admissible_beams(const SequenceRequest& request) const;
  Status add_more_ends(SequenceRequest& request) const;
  std::vector<TokenId> ends_of(const SequenceRequest& request) const;
  void add_sequence(SequenceRequest request);
  void add_beams(SequenceRequest request);
  void extend_beams(BeamRun& run);
  void apply_beam(Iterator sequence, SampledToken sampled, std::vector<SequenceEvent>& events);
  void report_beams(BeamRun& run, std::vector<SequenceEvent>& events) const;
  void drop_beams(SequenceId id);
  std::vector<DraftQuery> draft_queries();
  std::optional<StepPlan> plan(std::optional<Guesses> guesses);
  void plan_decodes(Drafts drafts, NewStep& step);
  void add_decode(Sequence& sequence, int32_t held, Draft draft, NewStep& step);
  Drafts draft_all(bool has_source) const;
  Drafts take_answers(Guesses guesses);
  int32_t drafts_max(const Sequence& sequence) const;
  void plan_prefills(NewStep& step);
  void admit(NewStep& step);
  void share_prefix(Sequence& sequence);
  void publish_blocks(Sequence& sequence);
  bool make_room(Iterator sequence, int32_t num_blocks, NewStep& step);
  void add_work(Sequence& sequence, int32_t num_tokens, NewStep& step);
  static void add_targets(Sequence& sequence, SlotWork& work, PendingItem& item);
  Sequences& list_of(SequenceState state);
  static Iterator place_of(Sequences& list, uint64_t age);
  void move_to(Iterator sequence, SequenceState state, Iterator before);
  void release_slot(Sequence& sequence);
  void retire_fully_planned();
  void erase(Iterator sequence);
  // Whether the request leaves a token to draw after `generated` tokens.
  Status drawable(const SequenceRequest& request, int32_t generated) const;
  // `request` is that of the sequence or beam that could not go on, `of_caller` the caller's request for which it was
  // made.
  SequenceEvent failed(const SequenceRequest& request, const SequenceRequest& of_caller) const;
  SequenceEvent take_token(Sequence& sequence, const SampledToken& sampled) const;
  void apply_draws(Sequence& sequence, const PendingItem& item, std::span<const SampledToken> sampled,
                   std::vector<SequenceEvent>& events);
  void apply_item(const PendingItem& item, std::span<const SampledToken> sampled, const SlotLogprobs* logprobs,
                  std::vector<SequenceEvent>& events);

  PlannerOptions options;
  BlockAllocator pool;
  // Each list is in order of age, and every running sequence is older than every waiting one, beams excepted.
  Sequences waiting;                               // hold no slot and no block
  Sequences running;                               // hold a slot
  Sequences draining;                              // fully planned: hold nothing and wait for their last results
  std::unordered_map<SequenceId, Iterator> by_id;  // beams are not in it
  std::map<SequenceId, BeamRun> beams;             // by the id of their search
  std::unordered_map<uint64_t, Iterator> by_serial;
  std::vector<int32_t> free_slots;
  std::vector<int32_t> released;  // freed slots of which the engine does not know yet
  std::deque<PendingStep> pending_steps;
  std::optional<Drafts> asked_drafts;     // between draft_queries() and plan()
  std::vector<uint64_t> asked_sequences;  // in the order of the queries
  std::vector<int32_t> accepted_guesses;
  uint64_t next_serial = 1;
  uint64_t next_step = 1;
  PlannerStats counters;
};

}  // namespace optserve::batching

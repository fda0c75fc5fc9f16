#include "batching/planner.h"

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "base/check.h"
#include "batching/planner_impl.h"

namespace optserve::batching {

namespace {

// A step of up to this many rows takes about as long as a step of a single row.
constexpr int32_t kDraftedRowsMax = 16;

int32_t divide_up(int32_t a, int32_t b) { return (a + b - 1) / b; }

}  // namespace

Planner::Impl::Sequences& Planner::Impl::list_of(SequenceState state) {
  if (state == SequenceState::kWaiting) return waiting;
  return state == SequenceState::kRunning ? running : draining;
}

// The place in `list` before the first sequence that is younger than `age`.
Planner::Impl::Iterator Planner::Impl::place_of(Sequences& list, uint64_t age) {
  auto place = list.end();
  while (place != list.begin() && std::prev(place)->age > age) --place;
  return place;
}

void Planner::Impl::move_to(Iterator sequence, SequenceState state, Iterator before) {
  list_of(state).splice(before, list_of(sequence->state), sequence);
  sequence->state = state;
}

void Planner::Impl::release_slot(Sequence& sequence) {
  released.push_back(sequence.slot);
  free_slots.push_back(sequence.slot);
  sequence.reset();
}

void Planner::Impl::erase(Iterator sequence) {
  if (sequence->slot >= 0) release_slot(*sequence);
  if (sequence->beam < 0) by_id.erase(sequence->request.id);
  by_serial.erase(sequence->serial);
  list_of(sequence->state).erase(sequence);
}

// Takes slots and blocks from sequences with nothing left to plan. They may be reused at once, since steps are executed
// in order.
void Planner::Impl::retire_fully_planned() {
  for (auto it = running.begin(); it != running.end();) {
    const auto sequence = it++;
    if (!sequence->fully_planned()) continue;
    release_slot(*sequence);
    move_to(sequence, SequenceState::kDraining, draining.end());
  }
}

// Grows the block table of `sequence`, preempting the youngest sequences while blocks are short; false if that was
// `sequence` itself.
bool Planner::Impl::make_room(Iterator sequence, int32_t num_blocks, NewStep& step) {
  while (!sequence->blocks.grow_to(num_blocks)) {
    const auto youngest = std::prev(running.end());
    release_slot(*youngest);
    move_to(youngest, SequenceState::kWaiting, place_of(waiting, youngest->age));
    step.preempted = true;
    ++counters.preemptions;
    if (youngest == sequence) return false;
  }
  return true;
}

void Planner::Impl::add_targets(Sequence& sequence, SlotWork& work, PendingItem& item) {
  // Row i gives the log-probability of position start + i + 1. Those that were reported before a preemption are not
  // asked for again.
  const int32_t end = std::min(sequence.given, work.start + work.num_tokens + 1);
  const int32_t begin = std::max(sequence.logprobs_next, work.start + 1);
  if (!sequence.request.prompt_logprobs || begin >= end) return;
  work.logprob_targets.assign(static_cast<size_t>(work.num_tokens), -1);
  work.target_best = sequence.request.prompt_best;
  for (int32_t position = begin; position < end; ++position) {
    work.logprob_targets[static_cast<size_t>(position - 1 - work.start)] =
        sequence.request.tokens[static_cast<size_t>(position)];
  }
  item.num_targets = end - begin;
  item.first_target = begin - 1 - work.start;
  item.logprobs_start = begin;
  sequence.logprobs_next = end;
}

void Planner::Impl::add_work(Sequence& sequence, int32_t num_tokens, NewStep& step) {
  SlotWork work;
  work.slot = sequence.slot;
  work.start = sequence.cached;
  work.num_tokens = num_tokens;
  if (!sequence.sampled_in_slot) {
    const auto first = sequence.request.tokens.begin() + sequence.cached;
    work.tokens.assign(first, first + num_tokens);
  }
  sequence.cached += num_tokens;
  work.sample = sequence.cached == sequence.length() && sequence.length() < sequence.length_max;
  PendingItem item{.serial = sequence.serial, .slot = sequence.slot, .sample = work.sample};
  add_targets(sequence, work, item);
  (sequence.sampled_in_slot ? counters.decode_tokens : counters.prefill_tokens) += static_cast<uint64_t>(num_tokens);
  if (work.sample) {
    ++sequence.pending;
    sequence.sampled_in_slot = true;
  }
  item.last = !work.sample && sequence.fully_planned();
  step.rows_left -= num_tokens;
  step.plan.work.push_back(std::move(work));
  step.pending.items.push_back(std::move(item));
}

// Plans the row of the token that was drawn last and, after it, the rows of the drafts. The engine already knows the
// first `held` blocks of the sequence.
void Planner::Impl::add_decode(Sequence& sequence, int32_t held, Draft draft, NewStep& step) {
  add_work(sequence, 1, step);
  // Drafts take free blocks only: no sequence is preempted for them.
  std::vector<TokenId>& drafts = draft.ids;
  const auto wanted = static_cast<int32_t>(drafts.size());
  if (!sequence.blocks.grow_to(divide_up(sequence.cached + wanted, options.block_tokens))) {
    drafts.resize(static_cast<size_t>(sequence.blocks.size() * options.block_tokens - sequence.cached));
  }
  SlotWork& work = step.plan.work.back();
  const auto blocks = sequence.blocks.blocks();
  work.new_blocks.assign(blocks.begin() + held, blocks.end());
  work.num_tokens += static_cast<int32_t>(drafts.size());
  step.rows_left -= static_cast<int32_t>(drafts.size());
  counters.drafted_tokens += drafts.size();
  sequence.drafted = !drafts.empty();
  step.pending.items.back().drafts = drafts;
  step.pending.items.back().from_source = draft.from_source;
  work.drafts = std::move(drafts);
}

// The drafts of the running sequences: from the text if it repeats itself, otherwise marked as to be asked of the
// source.
Drafts Planner::Impl::draft_all(bool has_source) const {
  Drafts drafts;
  for (const Sequence& sequence : running) {
    const int32_t most = sequence.sampled_in_slot && !sequence.drafted ? drafts_max(sequence) : 0;
    if (most <= 0) continue;
    Draft draft{.most = most};
    if (!sequence.speculation.pauses(sequence.length())) {
      draft.ids = look_up(sequence.request.tokens, std::min(options.draft_tokens, most));
    }
    // What follows a token cannot be drafted before it is known: the sequence waits for the step that draws it.
    draft.waits = sequence.pending > 0 && (!draft.ids.empty() || has_source);
    draft.from_source = draft.ids.empty() && has_source && !draft.waits;
    drafts.emplace(sequence.serial, std::move(draft));
  }
  return drafts;
}

std::vector<DraftQuery> Planner::Impl::draft_queries() {
  retire_fully_planned();
  asked_drafts = draft_all(true);
  asked_sequences.clear();
  std::vector<DraftQuery> queries;
  for (const Sequence& sequence : running) {
    const auto found = asked_drafts->find(sequence.serial);
    if (found == asked_drafts->end() || !found->second.from_source) continue;
    queries.push_back({&sequence.request, found->second.most});
    asked_sequences.push_back(sequence.serial);
  }
  return queries;
}

Drafts Planner::Impl::take_answers(Guesses guesses) {
  check(asked_drafts.has_value(), "guesses answer queries");
  check_eq(guesses.size(), asked_sequences.size(), "guesses for every query");
  Drafts drafts = std::move(*asked_drafts);
  for (size_t i = 0; i < guesses.size(); ++i) {
    Draft& draft = drafts.at(asked_sequences[i]);
    draft.ids = std::move(guesses[i]);
    draft.ids.resize(std::min(draft.ids.size(), static_cast<size_t>(draft.most)));
  }
  return drafts;
}

void Planner::Impl::plan_decodes(Drafts drafts, NewStep& step) {
  struct Drafted {
    Iterator sequence;
    int32_t held;
    Draft draft;
  };
  std::vector<Drafted> drafted;  // they come last, since the engine wants single rows first
  for (auto it = running.begin(); it != running.end(); ++it) {
    if (!it->sampled_in_slot || it->drafted) continue;
    Draft draft = std::move(drafts[it->serial]);
    if (draft.waits) continue;
    const int32_t held = it->blocks.size();
    if (!make_room(it, divide_up(it->cached + 1, options.block_tokens), step)) {
      break;  // it was the youngest sequence, so none is left
    }
    if (draft.ids.empty()) {
      add_decode(*it, held, {}, step);
    } else {
      drafted.push_back({it, held, std::move(draft)});
    }
  }
  for (Drafted& last : drafted) add_decode(*last.sequence, last.held, std::move(last.draft), step);
}

// How many tokens after the next drawn token may be drafted.
int32_t Planner::Impl::drafts_max(const Sequence& sequence) const {
  const auto count = static_cast<int32_t>(running.size());
  if (!waiting.empty()) return 0;
  const int32_t rows = std::min({kDraftedRowsMax, options.max_sequences, options.max_step_tokens}) / count;
  return std::min(rows - 1, sequence.length_max - sequence.length() - 1);
}

void Planner::Impl::plan_prefills(NewStep& step) {
  for (Sequence& sequence : running) {
    if (step.rows_left == 0) return;
    if (!sequence.sampled_in_slot) {
      add_work(sequence, std::min(step.rows_left, sequence.length() - sequence.cached), step);
    }
  }
}

// Shares the blocks that already hold the beginning of the sequence. At least one token must remain to be processed,
// and a token whose log-probability has yet to be reported needs the row before it.
void Planner::Impl::share_prefix(Sequence& sequence) {
  if (!options.prefix_cache) return;
  int32_t tokens_max = sequence.known() - 1;
  const bool reports = sequence.request.prompt_logprobs && sequence.logprobs_next < sequence.given;
  if (reports) tokens_max = std::min(tokens_max, sequence.logprobs_next - 1);
  for (int32_t block = 0; block < tokens_max / options.block_tokens; ++block) {
    if (!sequence.blocks.share_next(sequence.key_of(block, options.block_tokens))) break;
  }
  sequence.cached = sequence.blocks.size() * options.block_tokens;
}

// Lets other sequences share the blocks that are filled completely with known tokens by the steps planned so far. Steps
// are executed in order, so a later step finds them filled.
void Planner::Impl::publish_blocks(Sequence& sequence) {
  if (!options.prefix_cache || sequence.slot < 0) return;
  const int32_t whole = std::min(sequence.cached, sequence.known()) / options.block_tokens;
  const auto blocks = sequence.blocks.blocks();
  for (; sequence.published < whole; ++sequence.published) {
    const int32_t block = sequence.published;
    pool.publish(blocks[static_cast<size_t>(block)], sequence.key_of(block, options.block_tokens));
  }
}

void Planner::Impl::admit(NewStep& step) {
  while (!waiting.empty() && !free_slots.empty() && step.rows_left > 0 && !step.preempted) {
    const auto it = waiting.begin();
    if (it->pending > 0) return;  // its newest token is not known yet
    // The blocks of all known tokens are allocated at once, and one must be left for each running sequence; otherwise
    // this one would soon be preempted.
    share_prefix(*it);
    const int32_t blocks = divide_up(it->known(), options.block_tokens);
    if (pool.num_free() - (blocks - it->blocks.size()) < static_cast<int32_t>(running.size())) {
      it->reset();
      return;
    }
    check(it->blocks.grow_to(blocks), "blocks were counted before");
    it->published = it->cached / options.block_tokens;
    counters.shared_tokens += static_cast<uint64_t>(it->cached);
    it->slot = free_slots.back();
    free_slots.pop_back();
    move_to(it, SequenceState::kRunning, place_of(running, it->age));
    step.plan.admitted.push_back({it->slot, it->request.prompt_tokens, it->request.sampling, pack(it->request.rules)});
    const auto first = it->request.tokens.begin();
    step.plan.admitted.back().cached.assign(first, first + it->cached);
    add_work(*it, std::min(step.rows_left, it->length() - it->cached), step);
    const auto table = it->blocks.blocks();
    step.plan.work.back().new_blocks.assign(table.begin(), table.end());
  }
}

std::optional<StepPlan> Planner::Impl::plan(std::optional<Guesses> guesses) {
  if (static_cast<int32_t>(pending_steps.size()) >= options.pipeline_depth) return std::nullopt;
  NewStep step;
  step.rows_left = options.max_step_tokens;
  retire_fully_planned();
  plan_decodes(guesses ? take_answers(std::move(*guesses)) : draft_all(false), step);
  asked_drafts.reset();
  plan_prefills(step);
  admit(step);
  if (step.plan.work.empty()) return std::nullopt;
  for (Sequence& sequence : running) publish_blocks(sequence);
  step.plan.step = step.pending.step = next_step++;
  step.plan.released.swap(released);
  pending_steps.push_back(std::move(step.pending));
  ++counters.planned_steps;
  return std::move(step.plan);
}

// Appends the token to its sequence and returns the event that reports it.
SequenceEvent Planner::Impl::take_token(Sequence& sequence, const SampledToken& sampled) const {
  if (!sampled.finite) return failed(sequence.request, sequence.request);
  SequenceEvent event;
  event.id = sequence.request.id;
  event.position = sequence.known();
  sequence.request.tokens.push_back(sampled.token);
  event.token = sampled.token;
  event.logprob = sampled.logprob;
  event.best = sampled.best;
  event.finished = sequence.finish_reason(sampled.token, options);
  return event;
}

// `sampled` has the tokens drawn at the position of the item and at those of its drafts. A token counts only if all
// drafts before it were right.
void Planner::Impl::apply_draws(Sequence& sequence, const PendingItem& item, std::span<const SampledToken> sampled,
                                std::vector<SequenceEvent>& events) {
  --sequence.pending;
  int32_t accepted = 0;
  for (size_t i = 0;; ++i) {
    events.push_back(take_token(sequence, sampled[i]));
    if (events.back().finished || i == item.drafts.size() || sampled[i].token != item.drafts[i]) break;
    ++accepted;
    if (sequence.drafted) ++sequence.cached;  // otherwise it has since lost its slot
  }
  if (item.drafts.empty()) return;
  sequence.drafted = false;
  if (item.from_source) {
    accepted_guesses.push_back(accepted);
  } else {
    sequence.speculation.note(sequence.known(), accepted);
  }
  counters.accepted_tokens += static_cast<uint64_t>(accepted);
}

void Planner::Impl::apply_item(const PendingItem& item, std::span<const SampledToken> sampled,
                               const SlotLogprobs* logprobs, std::vector<SequenceEvent>& events) {
  const auto found = by_serial.find(item.serial);
  if (found == by_serial.end()) return;  // it ended while this step was running
  const Iterator sequence = found->second;
  if (sequence->beam >= 0) {
    if (!sampled.empty()) apply_beam(sequence, sampled.front(), events);
    return;
  }
  const size_t first_event = events.size();
  if (!sampled.empty()) {
    apply_draws(*sequence, item, sampled, events);
  } else if (item.last || logprobs != nullptr) {
    SequenceEvent& event = events.emplace_back();
    event.id = sequence->request.id;
    event.position = item.last ? sequence->known() : item.logprobs_start;
    if (item.last) event.finished = sampling::FinishReason::kLength;
  }
  if (logprobs != nullptr) {
    SequenceEvent& event = events[first_event];
    const auto first = logprobs->logprobs.begin() + item.first_target;
    event.prompt_logprobs.assign(first, first + item.num_targets);
    if (!logprobs->best.empty()) {
      const auto best = logprobs->best.begin() + item.first_target;
      event.prompt_best.assign(best, best + item.num_targets);
    }
    event.logprobs_start = item.logprobs_start;
  }
  if (events.size() > first_event && events.back().finished) erase(sequence);
}

Planner::Planner(const PlannerOptions& options) : impl_(std::make_unique<Impl>(options)) {}
Planner::~Planner() = default;

Status Planner::add(SequenceRequest request) {
  if (Status status = impl_->add_more_ends(request); !status.ok()) return status;
  if (Status status = impl_->admissible(request); !status.ok()) return status;
  if (request.sampling.is_beam_search()) {
    impl_->add_beams(std::move(request));
  } else {
    impl_->add_sequence(std::move(request));
  }
  return ok_status();
}

void Planner::Impl::add_sequence(SequenceRequest request) {
  const auto it = waiting.emplace(waiting.end(), std::move(request), next_serial++, pool, options.max_context);
  by_id.emplace(it->request.id, it);
  by_serial.emplace(it->serial, it);
}

bool Planner::cancel(SequenceId id) {
  if (impl_->beams.contains(id)) {
    impl_->drop_beams(id);
    return true;
  }
  const auto found = impl_->by_id.find(id);
  if (found == impl_->by_id.end()) return false;
  impl_->erase(found->second);
  return true;
}

bool Planner::has_work() const {
  const auto& running = impl_->running;
  return !impl_->waiting.empty() ||
         std::any_of(running.begin(), running.end(), [](const Sequence& s) { return !s.fully_planned(); });
}

bool Planner::may_plan() const { return in_flight() < impl_->options.pipeline_depth; }

std::vector<DraftQuery> Planner::draft_queries() { return impl_->draft_queries(); }

std::optional<StepPlan> Planner::plan(std::optional<Guesses> guesses) { return impl_->plan(std::move(guesses)); }

const std::vector<int32_t>& Planner::accepted_guesses() const { return impl_->accepted_guesses; }

std::vector<SequenceEvent> Planner::apply(const StepResult& result) {
  check(!impl_->pending_steps.empty(), "a result without a planned step");
  const PendingStep pending = std::move(impl_->pending_steps.front());
  impl_->pending_steps.pop_front();
  check_eq(result.step, pending.step, "step of the applied result");
  impl_->accepted_guesses.clear();
  std::vector<SequenceEvent> events;
  size_t samples = 0, logprobs = 0;
  for (const PendingItem& item : pending.items) {
    std::span<const SampledToken> sampled;
    const SlotLogprobs* targets = nullptr;
    if (item.num_targets > 0) {
      check(logprobs < result.logprobs.size(), "result lacks log-probabilities");
      targets = &result.logprobs[logprobs++];
      check_eq(targets->slot, item.slot, "slot of log-probabilities");
      check(targets->logprobs.size() >= static_cast<size_t>(item.first_target + item.num_targets),
            "log-probability rows");
      check(targets->best.empty() || targets->best.size() == targets->logprobs.size(), "rows of best tokens");
    }
    if (item.sample) {
      const size_t draws = 1 + item.drafts.size();
      check(samples + draws <= result.sampled.size(), "result lacks a sampled token");
      sampled = std::span(result.sampled).subspan(samples, draws);
      samples += draws;
      check_eq(sampled.front().slot, item.slot, "slot of a sampled token");
    }
    impl_->apply_item(item, sampled, targets, events);
  }
  check(samples == result.sampled.size() && logprobs == result.logprobs.size(), "result holds more than was planned");
  return events;
}

int32_t Planner::in_flight() const { return static_cast<int32_t>(impl_->pending_steps.size()); }

PlannerStats Planner::stats() const {
  PlannerStats stats = impl_->counters;
  stats.waiting = static_cast<int32_t>(impl_->waiting.size());
  stats.running = static_cast<int32_t>(impl_->running.size());
  stats.free_blocks = impl_->pool.num_free();
  stats.num_blocks = impl_->pool.num_blocks();
  return stats;
}

}  // namespace optserve::batching

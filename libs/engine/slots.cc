#include "engine/slots.h"

#include <algorithm>

#include "base/check.h"
#include "base/limits.h"

namespace optserve::engine {

using limits::kKvBlockTokens;

namespace {

StepSizes largest_step(const SlotLimits& limits, int64_t padded_sequences) {
  return {.rows = std::max<int64_t>(limits.max_step_tokens, padded_sequences),
          .sequences = padded_sequences,
          // Each sequence may enter with a whole table of blocks that others have filled.
          .table_updates = std::max(padded_sequences, limits.max_sequences * limits.blocks_max())};
}

int64_t history_length(const SlotLimits& limits) { return int64_t{limits.max_context} + 1; }

}  // namespace

int64_t SlotLimits::blocks_max() const { return (max_context + kKvBlockTokens - 1) / kKvBlockTokens; }

uint64_t slots_bytes(const SlotLimits& limits, int64_t padded_sequences) {
  const int64_t ints = limits.max_sequences * (history_length(limits) + limits.blocks_max()) + limits.max_step_tokens;
  const int64_t rules = limits.max_sequences * static_cast<int64_t>(limits::kTokenRulesWordsMax);
  return static_cast<uint64_t>(ints + rules) * sizeof(int32_t) +
         step_array_bytes(largest_step(limits, padded_sequences));
}

Slots::Slots(backend::Backend& backend, const SlotLimits& limits, const model_spec::OptConfig& config)
    : backend_(backend),
      limits_(limits),
      slots_(static_cast<size_t>(limits.max_sequences)),
      arrays_(backend, largest_step(limits, backend.padded_rows(limits.max_sequences))) {
  const int64_t rows = std::max<int64_t>(limits.max_step_tokens, backend.padded_rows(limits.max_sequences));
  ids_ = backend.allocate(static_cast<size_t>(rows) * sizeof(int32_t));
  const auto table = [&](Buffer& buffer, int64_t width) -> Tensor {
    buffer = backend.allocate(static_cast<size_t>(limits.max_sequences * width) * sizeof(int32_t));
    const Tensor view = buffer.view(DType::kI32, {limits.max_sequences, width});
    backend.fill_zero(view);
    return view;
  };
  batch_.entry.history = table(history_, history_length(limits));
  batch_.attention.block_table = batch_.entry.block_table = table(block_table_, limits.blocks_max());
  batch_.sample.history = batch_.entry.history;
  batch_.sample.rules = table(rules_, static_cast<int64_t>(limits::kTokenRulesWordsMax));
  batch_.sample.vocab_real = config.vocab_real;
  batch_.sample.eos = config.eos_id;
  batch_.sample.pad = config.pad_id;
  for (Slot& slot : slots_) slot.blocks.reserve(static_cast<size_t>(limits.blocks_max()));
}

Slots::Slot& Slots::live(int32_t slot) {
  check(slot >= 0 && slot < limits_.max_sequences, "slot of a step plan");
  Slot& found = slots_[static_cast<size_t>(slot)];
  check(found.live, "a step plan works on a free slot");
  return found;
}

void Slots::release(int32_t slot) {
  Slot& freed = live(slot);
  freed.live = false;
  freed.length = 0;
  freed.blocks.clear();
}

void Slots::admit(const batching::AdmittedSlot& admitted) {
  check(admitted.slot >= 0 && admitted.slot < limits_.max_sequences, "slot of a step plan");
  Slot& slot = slots_[static_cast<size_t>(admitted.slot)];
  slot.live = true;
  slot.length = 0;  // an earlier planner may have left something here
  slot.blocks.clear();
  slot.prompt_tokens = admitted.prompt_tokens;
  slot.sampling = admitted.sampling;
  slot.has_rules = !admitted.rules.empty();
  check(admitted.rules.size() <= limits::kTokenRulesWordsMax, "rules of a step plan");
  if (slot.has_rules) upload_row(batch_.sample.rules, admitted.slot, admitted.rules);
  check(static_cast<int64_t>(admitted.cached.size()) < limits_.max_context, "cached tokens of a step plan");
  if (!admitted.cached.empty()) upload_row(batch_.entry.history, admitted.slot, admitted.cached);
  slot.length = static_cast<int32_t>(admitted.cached.size());
}

void Slots::upload_row(const Tensor& table, int32_t slot, const std::vector<int32_t>& values) {
  const std::vector<int32_t>& kept = rows_staging_[turn_].emplace_back(values);
  const Tensor row = table.rows(slot, slot + 1);
  backend_.upload(Tensor(row.raw(), DType::kI32, {static_cast<int64_t>(kept.size())}, row.device()), kept.data());
}

namespace {
// -1: the token that the device drew last.
TokenId id_of_row(const batching::SlotWork& work, size_t row) {
  if (!work.tokens.empty()) return work.tokens[row];
  return row == 0 ? -1 : work.drafts[row - 1];
}
}  // namespace

void Slots::add_rows(const batching::SlotWork& work, const Slot& slot) {
  for (int32_t i = 0; i < work.num_tokens; ++i) {
    const int32_t position = work.start + i;
    arrays_[kNewIds].push_back(id_of_row(work, static_cast<size_t>(i)));
    arrays_[kSlots].push_back(work.slot);
    arrays_[kPositions].push_back(position);
    const int32_t block = slot.blocks[static_cast<size_t>(position / kKvBlockTokens)];
    arrays_[kKvSlots].push_back(block * kKvBlockTokens + position % kKvBlockTokens);
  }
  const auto sequence = static_cast<int32_t>(arrays_[kContext].size());
  backend::AttentionBatch& attention = batch_.attention;
  if (work.num_tokens == 1 && attention.num_decodes == sequence) {
    ++attention.num_decodes;
  } else {
    for (int32_t first = 0; first < work.num_tokens; first += backend::kAttentionTileRows) {
      arrays_[kTiles].insert(arrays_[kTiles].end(), {sequence, first});
    }
  }
  arrays_[kRowBegin].push_back(static_cast<int32_t>(arrays_[kNewIds].size()));
  arrays_[kContext].push_back(work.start + work.num_tokens);
  arrays_[kTableRows].push_back(work.slot);
}

// The history of a drafted row contains the drafts before it. The rows of those drafts write what they draw to the same
// places, perhaps while this row reads them. It reads something else only after a wrong draft, and then its draw does
// not count.
void Slots::add_draws(const batching::SlotWork& work, Slot& slot) {
  const auto rows = static_cast<int32_t>(arrays_[kNewIds].size());
  for (int32_t draw = 0; draw < work.num_draws(); ++draw) {
    arrays_[kDrawRows].push_back(rows - work.num_draws() + draw);
    arrays_.sample_rows.push_back(
        pack(slot.sampling, slot.has_rules, work.slot, slot.length + draw, slot.prompt_tokens));
  }
  batch_.sample.features |= sampling::sample_features(slot.sampling, slot.has_rules);
  ++slot.length;  // for the first drawn token
  slot.length_max = slot.length + static_cast<int32_t>(work.drafts.size());
}

void Slots::add_work(const batching::SlotWork& work) {
  Slot& slot = live(work.slot);
  const int64_t context = int64_t{work.start} + work.num_tokens;
  check(work.num_tokens > 0 && context <= limits_.max_context, "positions of a step plan");
  if (work.tokens.empty()) {
    const int64_t drafts = static_cast<int64_t>(work.drafts.size());
    const bool drawn = slot.length <= work.start + 1 && work.start + 1 <= slot.length_max;
    check(drawn && work.num_tokens == 1 + drafts, "the token drawn last is processed next, then its drafts");
    check(work.drafts.empty() || work.sample, "drafted rows draw");
    slot.length = work.start + 1;
  } else {
    const bool follows = work.tokens.size() == static_cast<size_t>(work.num_tokens) && slot.length == work.start;
    check(follows && work.drafts.empty(), "tokens of a step plan follow the cached ones");
    slot.length = static_cast<int32_t>(context);
  }
  decode_only_ = decode_only_ && work.tokens.empty() && work.num_draws() == 1 && work.logprob_targets.empty();
  for (int32_t block : work.new_blocks) {
    check(block >= 0 && block < limits_.num_blocks, "KV block of a step plan");
    const auto column = static_cast<int32_t>(slot.blocks.size());
    check(column < limits_.blocks_max(), "KV blocks of one sequence");
    arrays_[kTableUpdates].insert(arrays_[kTableUpdates].end(), {work.slot, column, block});
    slot.blocks.push_back(block);
  }
  check(static_cast<int64_t>(slot.blocks.size()) * kKvBlockTokens >= context, "KV blocks cover the step");
  for (size_t i = 0; i < work.logprob_targets.size(); ++i) {
    if (work.logprob_targets[i] < 0) continue;
    arrays_[kScoreRows].push_back(static_cast<int32_t>(arrays_[kNewIds].size() + i));
    arrays_[kScoreTargets].push_back(work.logprob_targets[i]);
    batch_.score_best = std::max(batch_.score_best, std::min(work.target_best, limits::kTopLogprobsMax));
  }
  add_rows(work, slot);
  if (work.sample) add_draws(work, slot);
}

// Pads a step of decoding sequences to a size for which the device has a graph.
void Slots::pad(size_t rows) {
  for (const StepArray array : {kNewIds, kSlots, kPositions, kKvSlots}) arrays_[array].resize(rows, -1);
  while (arrays_[kRowBegin].size() <= rows) arrays_[kRowBegin].push_back(arrays_[kRowBegin].back() + 1);
  arrays_[kContext].resize(rows, 0);
  arrays_[kTableRows].resize(rows, 0);
  arrays_.sample_rows.resize(rows);
  arrays_[kTableUpdates].resize(3 * rows, -1);
  arrays_[kDrawRows].clear();  // every row draws
  batch_.attention.num_decodes = static_cast<int64_t>(rows);
  batch_.graph_key = static_cast<uint64_t>(rows) << 8 | batch_.sample.features;
}

void Slots::upload() {
  arrays_.upload();
  batch_.num_tokens = static_cast<int64_t>(arrays_[kNewIds].size());
  batch_.entry.new_ids = arrays_.view(kNewIds);
  batch_.entry.slots = arrays_.view(kSlots);
  batch_.entry.positions = arrays_.view(kPositions);
  batch_.entry.ids = ids_.view(DType::kI32, {batch_.num_tokens});
  const auto rows_of = [&](StepArray array, int64_t width) {
    return arrays_.view(array).reshape({arrays_.view(array).numel() / width, width});
  };
  batch_.entry.table_updates = rows_of(kTableUpdates, 3);
  backend::AttentionBatch& attention = batch_.attention;
  attention.num_sequences = static_cast<int64_t>(arrays_[kContext].size());
  attention.row_begin = arrays_.view(kRowBegin);
  attention.context = arrays_.view(kContext);
  attention.table_rows = arrays_.view(kTableRows);
  attention.kv_slots = arrays_.view(kKvSlots);
  attention.tiles = rows_of(kTiles, 2);
  batch_.num_draws = static_cast<int64_t>(arrays_.sample_rows.size());
  batch_.draw_rows = arrays_[kDrawRows].empty() ? Tensor() : arrays_.view(kDrawRows);
  batch_.sample.rows = arrays_.sample_rows_view();
  batch_.score_rows = arrays_.view(kScoreRows);
  batch_.score_targets = arrays_.view(kScoreTargets);
}

void Slots::clear() {
  arrays_.clear();
  arrays_[kRowBegin].push_back(0);
  batch_.num_tokens = 0;
  batch_.attention.num_decodes = 0;
  batch_.sample.features = 0;
  batch_.score_best = 0;
  batch_.graph_key.reset();
  decode_only_ = true;
}

const Batch& Slots::begin_step(const batching::StepPlan& plan) {
  check(plan.num_tokens() <= limits_.max_step_tokens, "rows of a step plan");
  check(plan.work.size() <= slots_.size(), "work items of a step plan");
  clear();
  turn_ = (turn_ + 1) % rows_staging_.size();
  rows_staging_[turn_].clear();
  for (int32_t slot : plan.released) release(slot);
  for (const batching::AdmittedSlot& admitted : plan.admitted) admit(admitted);
  for (const batching::SlotWork& work : plan.work) add_work(work);
  if (arrays_[kNewIds].empty()) return batch_;
  const auto rows = static_cast<size_t>(backend_.padded_rows(static_cast<int64_t>(arrays_[kNewIds].size())));
  if (decode_only_ && arrays_[kTableUpdates].size() <= 3 * rows) pad(rows);
  upload();
  return batch_;
}

const Batch& Slots::padding_step(int64_t rows, uint32_t sample_features) {
  clear();
  batch_.sample.features = sample_features;
  pad(static_cast<size_t>(rows));
  upload();
  return batch_;
}

}  // namespace optserve::engine

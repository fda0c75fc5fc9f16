#include "engine/slots.h"

#include <algorithm>

#include "base/check.h"
#include "base/limits.h"

namespace optserve::engine {

using limits::kKvBlockTokens;

Slots::Slots(Backend& backend, const SlotLimits& limits)
    : backend_(backend),
      limits_(limits),
      blocks_max_((limits.max_context + kKvBlockTokens - 1) / kKvBlockTokens),
      slots_(static_cast<size_t>(limits.max_sequences)) {
  const auto ints = [&](int64_t count, std::vector<int32_t>& host) {
    host.reserve(static_cast<size_t>(count));
    return backend.allocate(static_cast<size_t>(count) * sizeof(int32_t));
  };
  ids_buffer_ = ints(limits.max_step_tokens, ids_);
  positions_buffer_ = ints(limits.max_step_tokens, positions_);
  kv_slots_buffer_ = ints(limits.max_step_tokens, kv_slots_);
  row_begin_buffer_ = ints(limits.max_sequences + 1, row_begin_);
  context_buffer_ = ints(limits.max_sequences, context_);
  block_table_buffer_ = ints(limits.max_sequences * blocks_max_, block_table_);
  for (Slot& slot : slots_) {
    slot.tokens.reserve(static_cast<size_t>(limits.max_context) + 1);
    slot.blocks.reserve(static_cast<size_t>(blocks_max_));
  }
}

Slot& Slots::live(int32_t slot) {
  check(slot >= 0 && slot < limits_.max_sequences, "slot of a step plan");
  Slot& found = slots_[static_cast<size_t>(slot)];
  check(found.live, "a step plan works on a free slot");
  return found;
}

void Slots::release(int32_t slot) {
  Slot& freed = live(slot);
  freed.live = false;
  freed.tokens.clear();
  freed.blocks.clear();
}

void Slots::admit(const batching::AdmittedSlot& admitted) {
  check(admitted.slot >= 0 && admitted.slot < limits_.max_sequences, "slot of a step plan");
  Slot& slot = slots_[static_cast<size_t>(admitted.slot)];
  slot.live = true;
  slot.tokens.clear();  // a planner that starts over does not know what an earlier one left
  slot.blocks.clear();
  slot.prompt_tokens = admitted.prompt_tokens;
  slot.sampling = admitted.sampling;
}

void Slots::add_work(const batching::SlotWork& work) {
  Slot& slot = live(work.slot);
  const auto start = static_cast<size_t>(work.start);
  const auto count = static_cast<size_t>(work.num_tokens);
  if (work.tokens.empty()) {
    check(count == 1 && slot.tokens.size() == start + 1, "the token drawn last is the next to process");
  } else {
    check(work.tokens.size() == count && slot.tokens.size() == start, "tokens of a step plan follow the cached ones");
    slot.tokens.insert(slot.tokens.end(), work.tokens.begin(), work.tokens.end());
  }
  const int64_t context = int64_t{work.start} + work.num_tokens;
  check(work.num_tokens > 0 && context <= limits_.max_context, "positions of a step plan");
  for (int32_t block : work.new_blocks) {
    check(block >= 0 && block < limits_.num_blocks, "KV block of a step plan");
    slot.blocks.push_back(block);
  }
  check(static_cast<int64_t>(slot.blocks.size()) * kKvBlockTokens >= context, "KV blocks cover the step");
  for (size_t position = start; position < start + count; ++position) {
    ids_.push_back(slot.tokens[position]);
    positions_.push_back(static_cast<int32_t>(position));
    kv_slots_.push_back(slot.blocks[position / kKvBlockTokens] * kKvBlockTokens +
                        static_cast<int32_t>(position % kKvBlockTokens));
  }
  row_begin_.push_back(static_cast<int32_t>(ids_.size()));
  context_.push_back(static_cast<int32_t>(context));
  block_table_.insert(block_table_.end(), slot.blocks.begin(), slot.blocks.end());
  block_table_.resize(context_.size() * static_cast<size_t>(blocks_max_));
  batch_.attention.max_rows = std::max<int64_t>(batch_.attention.max_rows, work.num_tokens);
  batch_.attention.max_context = std::max(batch_.attention.max_context, context);
}

Tensor Slots::upload_ints(const Buffer& buffer, const std::vector<int32_t>& values) {
  const Tensor view = buffer.view(DType::kI32, {static_cast<int64_t>(values.size())});
  backend_.upload(view, values.data());
  return view;
}

void Slots::upload() {
  batch_.num_tokens = static_cast<int64_t>(ids_.size());
  batch_.ids = upload_ints(ids_buffer_, ids_);
  batch_.positions = upload_ints(positions_buffer_, positions_);
  AttentionBatch& attention = batch_.attention;
  attention.num_sequences = static_cast<int64_t>(context_.size());
  attention.kv_slots = upload_ints(kv_slots_buffer_, kv_slots_);
  attention.row_begin = upload_ints(row_begin_buffer_, row_begin_);
  attention.context = upload_ints(context_buffer_, context_);
  attention.block_table =
      upload_ints(block_table_buffer_, block_table_).reshape({attention.num_sequences, blocks_max_});
}

const Batch& Slots::begin_step(const batching::StepPlan& plan) {
  check(plan.num_tokens() <= limits_.max_step_tokens, "rows of a step plan");
  check(plan.work.size() <= slots_.size(), "work items of a step plan");
  for (auto* array : {&ids_, &positions_, &kv_slots_, &row_begin_, &context_, &block_table_}) array->clear();
  batch_ = {};
  row_begin_.push_back(0);
  for (int32_t slot : plan.released) release(slot);
  for (const batching::AdmittedSlot& admitted : plan.admitted) admit(admitted);
  for (const batching::SlotWork& work : plan.work) add_work(work);
  if (!ids_.empty()) upload();
  return batch_;
}

void Slots::push_drawn(int32_t slot, TokenId token) { live(slot).tokens.push_back(token); }

}  // namespace optserve::engine

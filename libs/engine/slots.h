// What a rank remembers of each slot between steps, and how a plan becomes the device arrays of a step.
#pragma once

#include <cstdint>
#include <vector>

#include "batching/step_plan.h"
#include "engine/batch.h"
#include "model_spec/opt_config.h"

namespace optserve::engine {

struct SlotLimits {
  int32_t max_sequences = 0;
  int32_t max_step_tokens = 0;
  int32_t num_blocks = 0;
  int32_t max_context = 0;  // positions of the model
};

struct Slot {
  bool live = false;
  int32_t prompt_tokens = 0;
  SamplingParams sampling;
  std::vector<TokenId> tokens;  // known so far: in the cache, and the one drawn last
  std::vector<int32_t> blocks;  // KV blocks in order of position
};

class Slots {
 public:
  Slots(Backend& backend, const SlotLimits& limits);

  // Brings the slots up to date and uploads the step. A plan that breaks its promises aborts. The batch is valid until
  // the next call.
  const Batch& begin_step(const batching::StepPlan& plan);
  // The token that a step drew for this slot.
  void push_drawn(int32_t slot, TokenId token);
  const Slot& at(int32_t slot) const { return slots_[static_cast<size_t>(slot)]; }

 private:
  Slot& live(int32_t slot);
  void release(int32_t slot);
  void admit(const batching::AdmittedSlot& admitted);
  void add_work(const batching::SlotWork& work);
  void upload();
  Tensor upload_ints(const Buffer& buffer, const std::vector<int32_t>& values);

  Backend& backend_;
  SlotLimits limits_;
  int64_t blocks_max_;  // of one sequence
  std::vector<Slot> slots_;
  Batch batch_;
  // Host side of the step's arrays, in their order of rows or sequences, and their places on the device.
  std::vector<int32_t> ids_, positions_, kv_slots_, row_begin_, context_, block_table_;
  Buffer ids_buffer_, positions_buffer_, kv_slots_buffer_, row_begin_buffer_, context_buffer_, block_table_buffer_;
};

}  // namespace optserve::engine

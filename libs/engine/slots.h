// What a rank remembers of each slot between steps, and how a plan becomes the device arrays of a step. Token values
// live on the device: the host knows lengths and KV blocks, so a step can be started before the tokens of the one
// before are known here.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "batching/step_plan.h"
#include "engine/batch.h"
#include "engine/engine.h"
#include "engine/step_arrays.h"
#include "model_spec/opt_config.h"

namespace optserve::engine {

struct SlotLimits {
  int32_t max_sequences = 0;
  int32_t max_step_tokens = 0;
  int32_t num_blocks = 0;
  int32_t max_context = 0;  // positions of the model

  int64_t blocks_max() const;  // of one sequence
};

// Device and pinned memory that Slots takes: an upper bound.
uint64_t slots_bytes(const SlotLimits& limits, int64_t padded_sequences);

class Slots {
 public:
  Slots(backend::Backend& backend, const SlotLimits& limits, const model_spec::OptConfig& config);

  // Brings the slots up to date and uploads the step. A plan that breaks its promises aborts. The batch is valid until
  // the next call; its arrays until kStepsInFlight calls later.
  const Batch& begin_step(const batching::StepPlan& plan);
  // A decoding step of padding alone, which changes nothing: for preparing graphs. `rows` is a size that padded_rows()
  // gives.
  const Batch& padding_step(int64_t rows, uint32_t sample_features);

  // Of the sequence in a live slot, after begin_step().
  const sampling::SamplingParams& sampling(int32_t slot) const { return slots_[static_cast<size_t>(slot)].sampling; }

 private:
  struct Slot {
    bool live = false;
    int32_t prompt_tokens = 0;
    sampling::SamplingParams sampling;
    bool has_rules = false;
    int32_t length = 0;           // tokens that the device knows once every started step is done
    int32_t length_max = 0;       // as many if all drafts of the last step are right; they are when there were none
    std::vector<int32_t> blocks;  // KV blocks in order of position
  };

  Slot& live(int32_t slot);
  void release(int32_t slot);
  void admit(const batching::AdmittedSlot& admitted);
  // Writes the beginning of a row of `table`, in order with the steps.
  void upload_row(const Tensor& table, int32_t slot, const std::vector<int32_t>& values);
  void add_work(const batching::SlotWork& work);
  void add_rows(const batching::SlotWork& work, const Slot& slot);
  void add_draws(const batching::SlotWork& work, Slot& slot);
  void clear();
  void pad(size_t rows);
  void upload();

  backend::Backend& backend_;
  SlotLimits limits_;
  std::vector<Slot> slots_;
  StepArrays arrays_;
  Buffer ids_, history_, block_table_, rules_;
  // Rows on their way to the device, by step in turn: they must stay until the step is done.
  std::array<std::vector<std::vector<int32_t>>, Engine::kStepsInFlight> rows_staging_;
  size_t turn_ = 0;
  Batch batch_;
  bool decode_only_ = false;  // every sequence processes the token drawn last, and draws one
};

}  // namespace optserve::engine

// What a rank remembers of each slot between steps, and how a plan becomes the arrays of a step on the device. The
// values of tokens stay on the device, and the host knows only lengths and KV blocks, so that a step can be started
// before the tokens of the previous one have reached the host.
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
  int32_t max_context = 0;  // the positions that the model has

  int64_t blocks_max() const;  // of one sequence
};

// An upper bound on the device memory that Slots takes.
uint64_t slots_bytes(const SlotLimits& limits, int64_t padded_sequences);

class Slots {
 public:
  Slots(backend::Backend& backend, const SlotLimits& limits, const model_spec::OptConfig& config);

  // Brings the slots up to date and uploads the step. Aborts if the plan contradicts itself or the slots. The batch is
  // valid until the next call, and its arrays are valid until kStepsInFlight calls later.
  const Batch& begin_step(const batching::StepPlan& plan);
  // A decoding step that consists of padding and changes nothing, for preparing graphs. `rows` is a size that
  // Backend::padded_rows() returns.
  const Batch& padding_step(int64_t rows, uint32_t sample_features);

  // The parameters of the sequence in a live slot, after begin_step().
  const sampling::SamplingParams& sampling(int32_t slot) const { return slots_[static_cast<size_t>(slot)].sampling; }

 private:
  struct Slot {
    bool live = false;
    int32_t prompt_tokens = 0;
    sampling::SamplingParams sampling;
    bool has_rules = false;
    int32_t length = 0;           // tokens that the device knows once every started step is done
    int32_t length_max = 0;       // the same if all drafts of the last step turn out to be right
    std::vector<int32_t> blocks;  // KV blocks in order of position
  };

  Slot& live(int32_t slot);
  void release(int32_t slot);
  void admit(const batching::AdmittedSlot& admitted);
  // Enqueues a write of the beginning of a row of `table`, after the steps that are already started.
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
  // The rows that a step uploads. They must stay until the step is done.
  std::array<std::vector<std::vector<int32_t>>, Engine::kStepsInFlight> rows_staging_;
  size_t turn_ = 0;
  Batch batch_;
  bool decode_only_ = false;  // every sequence of the step processes the token drawn last, and draws one
};

}  // namespace optserve::engine

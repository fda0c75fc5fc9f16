// The small arrays of a step, side by side in one piece of memory, so that one copy takes them to the device. The
// places of the arrays depend only on their sizes, so that steps of the same sizes can share a recorded graph.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "engine/engine.h"
#include "sampling/sample_row.h"

namespace optserve::engine {

// engine/batch.h says what they mean.
enum StepArray : uint8_t {
  kNewIds,
  kSlots,
  kPositions,
  kKvSlots,
  kRowBegin,
  kContext,
  kTableRows,
  kTiles,
  kDrawRows,
  kScoreRows,
  kScoreTargets,
  kTableUpdates,
  kStepArrayCount
};

// The maximum sizes of a step, padding included.
struct StepSizes {
  int64_t rows = 0;
  int64_t sequences = 0;      // also the most tokens that a step draws
  int64_t table_updates = 0;  // KV blocks that enter a block table
};

// Device memory of the arrays of one step. step_arrays.cc gives the size of each array; a new array without a size does
// not compile.
size_t step_array_bytes(const StepSizes& most);

class StepArrays {
 public:
  StepArrays(backend::Backend& backend, const StepSizes& most);

  // The array of the current step on the host.
  std::vector<int32_t>& operator[](StepArray array) { return ints_[array]; }
  std::vector<sampling::PackedSampleRow> sample_rows;
  void clear();
  // Copies everything to the device, in order.
  void upload();

  // The arrays on the device, after upload().
  const Tensor& view(StepArray array) const { return int_views_[array]; }  // I32[elements]
  const Tensor& sample_rows_view() const { return sample_rows_view_; }     // U8[rows, sizeof(PackedSampleRow)]

 private:
  backend::Backend& backend_;
  std::array<std::vector<int32_t>, kStepArrayCount> ints_;
  Buffer device_;
  std::array<Buffer, Engine::kStepsInFlight>
      staging_;  // used in turn, since the copy of the previous step may not have ended
  size_t turn_ = 0;
  std::array<Tensor, kStepArrayCount> int_views_;
  Tensor sample_rows_view_;
};

}  // namespace optserve::engine

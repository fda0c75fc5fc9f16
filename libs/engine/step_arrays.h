// The small arrays of a step, side by side in one piece of memory, so that one copy brings them to the device. Where an
// array lies depends on the sizes alone: steps of the same sizes can share a recorded graph.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "engine/engine.h"
#include "sampling/sample_row.h"

namespace optserve::engine {

// What they mean: engine/batch.h.
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

// The most that a step holds, padding included.
struct StepSizes {
  int64_t rows = 0;
  int64_t sequences = 0;      // of which each draws one token, or fewer sequences draw more of them
  int64_t table_updates = 0;  // KV blocks that enter a block table
};

// Device memory of the arrays of one step. Each array's part of it stands in step_arrays.cc; an array without one does
// not compile.
size_t step_array_bytes(const StepSizes& most);

class StepArrays {
 public:
  StepArrays(backend::Backend& backend, const StepSizes& most);

  // Host side of the present step.
  std::vector<int32_t>& operator[](StepArray array) { return ints_[array]; }
  std::vector<sampling::PackedSampleRow> sample_rows;
  void clear();
  // Copies everything to the device, in order.
  void upload();

  // Device side, after upload().
  const Tensor& view(StepArray array) const { return int_views_[array]; }  // I32[elements]
  const Tensor& sample_rows_view() const { return sample_rows_view_; }     // U8[rows, sizeof(PackedSampleRow)]

 private:
  backend::Backend& backend_;
  std::array<std::vector<int32_t>, kStepArrayCount> ints_;
  Buffer device_;
  std::array<Buffer, Engine::kStepsInFlight> staging_;  // in turn: the copy of the step before may still be under way
  size_t turn_ = 0;
  std::array<Tensor, kStepArrayCount> int_views_;
  Tensor sample_rows_view_;
};

}  // namespace optserve::engine

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

class StepArrays {
 public:
  // `bytes_max`: of all arrays of one step.
  StepArrays(Backend& backend, size_t bytes_max);

  // Host side of the present step.
  std::vector<int32_t>& operator[](StepArray array) { return ints_[array]; }
  std::vector<PackedSampleRow> sample_rows;
  void clear();
  // Copies everything to the device, in order.
  void upload();

  // Device side, after upload().
  const Tensor& view(StepArray array) const { return int_views_[array]; }  // I32[elements]
  const Tensor& sample_rows_view() const { return sample_rows_view_; }     // U8[rows, sizeof(PackedSampleRow)]

 private:
  Backend& backend_;
  std::array<std::vector<int32_t>, kStepArrayCount> ints_;
  Buffer device_;
  std::array<Buffer, Engine::kStepsInFlight> staging_;  // in turn: the copy of the step before may still be under way
  size_t turn_ = 0;
  std::array<Tensor, kStepArrayCount> int_views_;
  Tensor sample_rows_view_;
};

}  // namespace optserve::engine

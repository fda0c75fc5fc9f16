// Rows of a model as a checkpoint stores them: rounded to its type, and the large matrices quantised. The last step
// before the bytes are cut into shards and written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "checkpoint/manifest/layout.h"
#include "converter/weight_rows.h"

namespace optserve::converter {

class StoredRows {
 public:
  // Valid until the next call of read().
  struct Piece {
    std::span<const std::byte> values;  // of the rows, one after the other
    std::span<const float> scales;      // of the rows; empty unless the tensor is quantised
    uint64_t nonfinite = 0;             // weights that are NaN or infinite after rounding to the plan's type
  };

  // Both outlive the object.
  StoredRows(const WeightRows& rows, const checkpoint::ShardPlan& plan) : rows_(rows), plan_(plan) {}

  // Rows [row, row + count) of a tensor, all columns. Quantised formats cannot hold weights that are not finite: such a
  // row is stored as zeros, and the caller must refuse the tensor. Of plain ones, `count_nonfinite` says whether
  // anybody wants to know. Throws Error.
  Piece read(const model_spec::TensorSpec& spec, int64_t row, int64_t count, bool count_nonfinite);

 private:
  uint64_t quantise(const model_spec::TensorSpec& spec, DType from, int64_t count);

  const WeightRows& rows_;
  const checkpoint::ShardPlan& plan_;
  std::vector<std::byte> raw_;      // rows in the type in which they are read, where it is not the stored one
  std::vector<std::byte> rounded_;  // one row in the plan's type, before it is quantised
  std::vector<float> wide_;         // the same row, widened
  std::vector<std::byte> values_;
  std::vector<float> scales_;
};

// Rounds `count` elements of type `from` to type `to`, both floating.
void round_elements(const std::byte* in, DType from, std::byte* out, DType to, size_t count);

}  // namespace optserve::converter
